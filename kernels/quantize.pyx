"""Eight, four, two or one bit a value with one float32 scale a block and stochastic rounding: small, without a bias.

The random bits are a function of (seed, block, place in the block) and of nothing else, so a result does not
depend on threads, processors or on what was drawn before. The loops stand in quantize_simd.h, their numpy twin
in reference_quantize.py gives the same bytes. packed_simd.h says which half of a byte and which bit comes first.

A value is cut to a multiple of 2^-24 of a step (the distance of its two outcomes) before the dice are thrown, and
E[decoded] = x holds to within that. A block whose values are all below 2^-96 in magnitude becomes zeros with scale
0. Every function that quantises raises ValueError for a NaN, an infinity or a magnitude above 2^127; a scale that is
not finite makes what is decoded not finite. An `out` must not overlap what is read.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint64_t

import numpy as np

from _accumulate cimport kb_levels_1bit, kb_levels_2bit, kb_levels_4bit, kb_levels_int8
from _blocks cimport blocks_of, check_packed, check_scales

cdef extern from "quantize_simd.h" nogil:
    int kb_quantize_int8(int64_t n, int block, uint64_t seed, const float *x, int8_t *q, float *scales)
    int kb_quantize_4bit(int64_t n, int block, uint64_t seed, const float *x, uint8_t *packed, float *scales)
    int kb_quantize_2bit(int64_t n, int block, uint64_t seed, const float *x, uint8_t *packed, float *scales)
    int kb_quantize_sign(int64_t n, int block, const float *x, uint8_t *packed, float *scales)
    int kb_quantize_1bit(int64_t n, int block, uint64_t seed, const float *x, uint8_t *packed, float *scales)


cdef int refuse_unless(int status) except -1:
    if status != 0:
        raise ValueError("update must be finite and at most 2^127, got a value that is not")
    return 0


cdef object output(int64_t n, object out):
    if out is None:
        return np.empty(n, np.float32)
    if out.shape != (n,):
        raise ValueError(f"out must hold {n} values, got shape {out.shape}")
    return out


def quantize_int8(const float[::1] x, *, int block=256, uint64_t seed):
    """Round `x` (P,) float32 to int8 in [-127, 127]; returns (q (P,) int8, scales (ceil(P / block),) float32).

    A block's scale is max |x| / 127, and E[q * scale] = x.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    q, scales = np.empty(n, np.int8), np.empty(blocks_of(n, block, 1), np.float32)
    cdef int8_t[::1] q_view = q
    cdef float[::1] scales_view = scales
    if n > 0:
        with nogil:
            status = kb_quantize_int8(n, block, seed, &x[0], &q_view[0], &scales_view[0])
    refuse_unless(status)
    return q, scales


def quantize_4bit(const float[::1] x, *, int block=256, uint64_t seed):
    """Round `x` (P,) float32 to levels in [-7, 7], two a byte, the first in the low half, in two's complement.

    Returns (packed (ceil(P / 2),) uint8, scales (ceil(P / block),) float32), `block` even. A block's scale is
    max |x| / 7, and E[level * scale] = x. The last half byte of an odd P is zero.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    scales, packed = np.empty(blocks_of(n, block, 2), np.float32), np.empty((n + 1) // 2, np.uint8)
    cdef uint8_t[::1] packed_view = packed
    cdef float[::1] scales_view = scales
    if n > 0:
        with nogil:
            status = kb_quantize_4bit(n, block, seed, &x[0], &packed_view[0], &scales_view[0])
    refuse_unless(status)
    return packed, scales


def quantize_2bit(const float[::1] x, *, int block=256, uint64_t seed):
    """Round `x` (P,) float32 to levels -1, 0 and 1, four a byte, the first in the lowest bits, in two's complement.

    Returns (packed (ceil(P / 4),) uint8, scales (ceil(P / block),) float32), `block` a multiple of 4. A block's scale
    is max |x|, and E[level * scale] = x. The bits after the last value are zero.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    scales, packed = np.empty(blocks_of(n, block, 4), np.float32), np.empty((n + 3) // 4, np.uint8)
    cdef uint8_t[::1] packed_view = packed
    cdef float[::1] scales_view = scales
    if n > 0:
        with nogil:
            status = kb_quantize_2bit(n, block, seed, &x[0], &packed_view[0], &scales_view[0])
    refuse_unless(status)
    return packed, scales


def quantize_1bit(const float[::1] x, *, int block=256, uint64_t seed):
    """Draw a sign for each of `x` (P,) float32, eight a byte, the first in the lowest bit, a set bit for minus.

    Returns (packed (ceil(P / 8),) uint8, scales (ceil(P / block),) float32), `block` a multiple of 8. A block's scale
    s is max |x|, and minus has the probability (1 - x / s) / 2, so E[±s] = x. The price is the variance s^2 - x^2
    of each value: a block whose largest value stands far above the rest becomes mostly noise, and only a mean over
    many devices recovers it. The bits after the last value are zero.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    scales, packed = np.empty(blocks_of(n, block, 8), np.float32), np.empty((n + 7) // 8, np.uint8)
    cdef uint8_t[::1] packed_view = packed
    cdef float[::1] scales_view = scales
    if n > 0:
        with nogil:
            status = kb_quantize_1bit(n, block, seed, &x[0], &packed_view[0], &scales_view[0])
    refuse_unless(status)
    return packed, scales


def quantize_sign(const float[::1] x, *, int block=256):
    """The signs of `x` (P,) float32, packed as by `quantize_1bit`, which draws them: a set bit for minus.

    Returns (packed (ceil(P / 8),) uint8, scales (ceil(P / block),) float32). A block's scale is ||x||^2 / ||x||_1, so
    that <decoded, x> = ||x||^2 up to rounding: after a random rotation the expected value of what is decoded and
    turned back is x (DRIVE: Vargaftik et al. 2021, arXiv 2105.08339). `dequantize_1bit` reads it.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    scales, packed = np.empty(blocks_of(n, block, 8), np.float32), np.empty((n + 7) // 8, np.uint8)
    cdef uint8_t[::1] packed_view = packed
    cdef float[::1] scales_view = scales
    if n > 0:
        with nogil:
            status = kb_quantize_sign(n, block, &x[0], &packed_view[0], &scales_view[0])
    refuse_unless(status)
    return packed, scales


def dequantize_int8(const int8_t[::1] q, const float[::1] scales, *, int block=256, out=None):
    """q * scale as float32 (P,), into `out` if given. Raises ValueError if the lengths do not fit."""
    cdef int64_t n = q.shape[0]
    check_scales(n, block, 1, scales)
    out = output(n, out)
    cdef float[::1] out_view = out
    if n > 0:
        with nogil:
            kb_levels_int8(n, block, 1, &q[0], &scales[0], &out_view[0], NULL)
    return out


def dequantize_4bit(const uint8_t[::1] packed, const float[::1] scales, *, int64_t size, int block=256, out=None):
    """level * scale as float32 (size,), into `out` if given.

    Raises ValueError if the lengths do not fit, for a level of -8 and for a last half byte that should be zero.
    """
    check_scales(size, block, 2, scales)
    check_packed(size, 2, packed)
    out = output(size, out)
    cdef float[::1] out_view = out
    if size > 0:
        with nogil:
            kb_levels_4bit(size, block, 1, &packed[0], &scales[0], &out_view[0], NULL)
    return out


def dequantize_2bit(const uint8_t[::1] packed, const float[::1] scales, *, int64_t size, int block=256, out=None):
    """level * scale as float32 (size,), into `out` if given.

    Raises ValueError if the lengths do not fit, for a level of -2 and for bits after the last that should be zero.
    """
    check_scales(size, block, 4, scales)
    check_packed(size, 4, packed)
    out = output(size, out)
    cdef float[::1] out_view = out
    if size > 0:
        with nogil:
            kb_levels_2bit(size, block, 1, &packed[0], &scales[0], &out_view[0], NULL)
    return out


def dequantize_1bit(const uint8_t[::1] packed, const float[::1] scales, *, int64_t size, int block=256, out=None):
    """±scale as float32 (size,), into `out` if given.

    Raises ValueError if the lengths do not fit and for bits after the last value that should be zero.
    """
    check_scales(size, block, 8, scales)
    check_packed(size, 8, packed)
    out = output(size, out)
    cdef float[::1] out_view = out
    if size > 0:
        with nogil:
            kb_levels_1bit(size, block, 1, &packed[0], &scales[0], &out_view[0], NULL)
    return out
