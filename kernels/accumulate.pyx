"""Running sums over a cohort's updates: one pass over memory an update, in float32, in the order of the calls.

Multiplication and addition round separately (never fused), so that a sum is the same bytes on every processor
and in the numpy twin of reference_codec.py.
"""

from libc.math cimport sqrt
from libc.stdint cimport int8_t, int64_t

cdef extern from "quantize_simd.h" nogil:
    void kb_accumulate_int8(int64_t n, int block, double weight, const int8_t *q, const float *scales, float *acc)
    void kb_accumulate_float32(int64_t n, float weight, const float *x, float *acc)
    void kb_scale(int64_t n, float factor, float *x)
    double kb_squared_norm(int64_t n, const float *x)


def accumulate_int8(float[::1] acc, const int8_t[::1] q, const float[::1] scales, double weight, *, int block=256):
    """acc (P,) += weight * scale * q, the dequantisation and the weighted sum in one pass.

    `weight * scale` is rounded to float32 once a block. Raises ValueError if the lengths do not fit.
    """
    cdef int64_t n = acc.shape[0]
    if block < 1:
        raise ValueError(f"block must be >= 1, got {block}")
    if q.shape[0] != n:
        raise ValueError(f"q must hold {n} values, got {q.shape[0]}")
    if scales.shape[0] != n // block + (n % block > 0):
        raise ValueError(f"{n} values in blocks of {block} do not fit {scales.shape[0]} scales")
    if n > 0:
        with nogil:
            kb_accumulate_int8(n, block, weight, &q[0], &scales[0], &acc[0])


def accumulate_float32(float[::1] acc, const float[::1] x, double weight):
    """acc (P,) += float32(weight) * x. Raises ValueError if the lengths differ."""
    cdef int64_t n = acc.shape[0]
    if x.shape[0] != n:
        raise ValueError(f"x must hold {n} values, got {x.shape[0]}")
    if n > 0:
        with nogil:
            kb_accumulate_float32(n, <float>weight, &x[0], &acc[0])


def scale_inplace(float[::1] x, double factor):
    """x (P,) *= float32(factor)."""
    if x.shape[0] > 0:
        with nogil:
            kb_scale(x.shape[0], <float>factor, &x[0])


def l2_norm(const float[::1] x):
    """The Euclidean norm of x (P,), summed in float64: it cannot overflow, and is NaN or infinite only if x is."""
    cdef double total = 0
    if x.shape[0] > 0:
        with nogil:
            total = kb_squared_norm(x.shape[0], &x[0])
    return sqrt(total)
