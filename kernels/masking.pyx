"""Fixed-point numbers modulo 2^bits and mask words added to them: sums that are exact though nobody sees a summand.

A value in [-limit, limit] becomes a whole number in [-levels, levels], written modulo 2^bits into a uint32. The sum
of n devices' words, taken modulo 2^bits, decodes to the sum of their numbers as long as n * levels < 2^(bits - 1)
(Bonawitz et al. 2017, section 4). The numpy twins of reference_masking.py give the same bytes.
"""

from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

import numpy as np

cdef extern from "masking_simd.h" nogil:
    int kb_encode_fixed(
        int64_t n, double factor, int32_t levels, uint32_t mask, uint64_t seed, const float *x, uint32_t *words)
    void kb_decode_fixed(int64_t n, int bits, double step, const uint32_t *words, float *out)
    void kb_mask_add(int64_t n, uint32_t mask, const uint32_t *other, uint32_t *words)
    void kb_mask_subtract(int64_t n, uint32_t mask, const uint32_t *other, uint32_t *words)


cdef double SMALLEST_LIMIT = 2.0**-126  # of float32's normal numbers; levels / limit stays finite


cdef int check_bits(int bits) except -1:
    if not 2 <= bits <= 32:
        raise ValueError(f"bits must be in [2, 32], got {bits}")
    return 0


cdef int check_range(double limit, int64_t levels, int bits) except -1:
    check_bits(bits)
    if not (isfinite(limit) and limit >= SMALLEST_LIMIT):
        raise ValueError(f"limit must be finite and >= 2^-126, got {limit}")
    if not 1 <= levels < <int64_t>1 << (bits - 1):
        raise ValueError(f"levels must be in [1, {(<int64_t>1 << (bits - 1)) - 1}], got {levels}")
    return 0


cdef uint32_t ones(int bits) noexcept nogil:
    return <uint32_t>0xFFFFFFFF >> (32 - bits)


cdef int check_mask(const uint32_t[::1] words, const uint32_t[::1] mask, int bits) except -1:
    check_bits(bits)
    if mask.shape[0] != words.shape[0]:
        raise ValueError(f"mask must hold {words.shape[0]} words, got {mask.shape[0]}")
    return 0


def encode_fixed(const float[::1] x, *, double limit, int64_t levels, int bits, uint64_t seed):
    """`x` (P,) float32 clipped to [-limit, limit], times levels / limit, rounded at random: (P,) uint32 < 2^bits.

    E[decode_fixed(encode_fixed(x))] = x for what is not clipped. The random bits are a function of (seed, place).
    Raises ValueError for a NaN or an infinity, or unless 2 <= bits <= 32, 1 <= levels < 2^(bits - 1) and
    2^-126 <= limit < infinity.
    """
    cdef int64_t n = x.shape[0]
    cdef int status = 0
    check_range(limit, levels, bits)
    words = np.empty(n, np.uint32)
    cdef uint32_t[::1] view = words
    if n > 0:
        with nogil:
            status = kb_encode_fixed(n, levels / limit, <int32_t>levels, ones(bits), seed, &x[0], &view[0])
    if status != 0:
        raise ValueError("values must be finite, got a NaN or an infinity")
    return words


def decode_fixed(const uint32_t[::1] words, *, double limit, int64_t levels, int bits):
    """words (P,) modulo 2^bits, read as numbers in [-2^(bits - 1), 2^(bits - 1)), times limit / levels: (P,) float32.

    Bits above the lowest `bits` of a word are ignored. Raises ValueError for a rule that `encode_fixed` refuses.
    """
    cdef int64_t n = words.shape[0]
    check_range(limit, levels, bits)
    out = np.empty(n, np.float32)
    cdef float[::1] view = out
    if n > 0:
        with nogil:
            kb_decode_fixed(n, bits, limit / levels, &words[0], &view[0])
    return out


def mask_add(uint32_t[::1] words, const uint32_t[::1] mask, *, int bits):
    """words (P,) uint32 = (words + mask) modulo 2^bits, in place; they must not overlap.

    Raises ValueError if the lengths differ.
    """
    check_mask(words, mask, bits)
    if words.shape[0] > 0:
        with nogil:
            kb_mask_add(words.shape[0], ones(bits), &mask[0], &words[0])


def mask_subtract(uint32_t[::1] words, const uint32_t[::1] mask, *, int bits):
    """words (P,) uint32 = (words - mask) modulo 2^bits, in place; they must not overlap.

    Raises ValueError if the lengths differ.
    """
    check_mask(words, mask, bits)
    if words.shape[0] > 0:
        with nogil:
            kb_mask_subtract(words.shape[0], ones(bits), &mask[0], &words[0])
