"""int8 with one float32 scale a block and stochastic rounding: four bytes become one, without a bias.

The random bits are a function of (seed, block, place in the block) and of nothing else, so a result does not
depend on threads, processors or on what was drawn before. The loops stand in quantize_simd.h, their numpy twin
in reference_codec.py gives the same bytes.
"""

from libc.stdint cimport int8_t, int64_t, uint64_t

import numpy as np

cdef extern from "quantize_simd.h" nogil:
    int kb_quantize_int8(int64_t n, int block, uint64_t seed, const float *x, int8_t *q, float *scales)
    void kb_dequantize_int8(int64_t n, int block, const int8_t *q, const float *scales, float *out)


cdef int64_t blocks_of(int64_t n, int block) except -1:
    """ceil(n / block), the number of scales of n values."""
    if block < 1:
        raise ValueError(f"block must be >= 1, got {block}")
    return n // block + (n % block > 0)


def quantize_int8(const float[::1] x, *, int block=256, uint64_t seed):
    """Round `x` (P,) float32 to int8 in [-127, 127]; returns (q (P,) int8, scales (ceil(P / block),) float32).

    A block's scale is max |x| / 127, and E[q * scale] = x. A block whose values are all below 2^-96 in
    magnitude becomes zeros with scale 0. Raises ValueError for a NaN, an infinity or a magnitude above 2^127.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    q = np.empty(n, np.int8)
    scales = np.empty(blocks_of(n, block), np.float32)
    cdef int8_t[::1] q_view = q
    cdef float[::1] scales_view = scales
    if n > 0:
        with nogil:
            status = kb_quantize_int8(n, block, seed, &x[0], &q_view[0], &scales_view[0])
    if status != 0:
        raise ValueError("update must be finite and at most 2^127, got a value that is not")
    return q, scales


def dequantize_int8(const int8_t[::1] q, const float[::1] scales, *, int block=256, out=None):
    """q * scale as float32 (P,), into `out` if given. Raises ValueError if the lengths do not fit."""
    cdef int64_t n = q.shape[0]
    if scales.shape[0] != blocks_of(n, block):
        raise ValueError(f"{n} values in blocks of {block} need {blocks_of(n, block)} scales, got {scales.shape[0]}")
    if out is None:
        out = np.empty(n, np.float32)
    cdef float[::1] out_view = out
    if out_view.shape[0] != n:
        raise ValueError(f"out must hold {n} values, got {out_view.shape[0]}")
    if n > 0:
        with nogil:
            kb_dequantize_int8(n, block, &q[0], &scales[0], &out_view[0])
    return out
