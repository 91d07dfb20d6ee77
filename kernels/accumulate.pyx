"""Running sums over a cohort's updates: one pass over memory an update, the same bytes in any order.

A sum is float64, and each term is rounded to a multiple of 2^-32 before it is added (never fused): while the
magnitudes that meet at a place stay below 2^21, nothing is rounded any more, so that updates may be added in any
order and by any number of workers, whose sums are added in turn. Beyond, a sum rounds as floats do; NaN and infinity
travel as IEEE 754 says. The numpy twin of reference_accumulate.py gives the same bytes. Integer sums are exact.
Whatever is refused with ValueError leaves the sum as it was. What is added must not overlap the sum.
"""

from libc.math cimport fabs, isfinite, sqrt
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from _accumulate cimport (
    kb_accumulate_float32, kb_accumulate_rows, kb_accumulate_runs, kb_accumulate_sparse, kb_accumulate_sparse_int8,
    kb_levels_1bit, kb_levels_2bit, kb_levels_4bit, kb_levels_int8,
)
from _blocks cimport check_packed, check_scales
from _indices cimport check_indices, check_runs

cdef extern from "integer_simd.h" nogil:
    int kb_sum_int32(int64_t n, int32_t weight, const int8_t *q, int32_t *acc)
    int kb_sum_int64(int64_t n, int64_t weight, const int8_t *q, int64_t *acc)

cdef extern from "norm_simd.h" nogil:
    double kb_squared_norm(int64_t n, const float *x)
    double kb_squared_norm_in_fours(int64_t n, const float *x)
    void kb_scale(int64_t n, float factor, float *x)
    void kb_scale_into(int64_t n, float factor, const float *x, float *out)

ctypedef fused whole:
    int32_t
    int64_t

# The factor and each scaled value are off by 2^-24 of themselves at the most, the norm by 1.5 times that.
cdef double JUST_INSIDE = 1 - 2.0**-22
cdef double SMALLEST_FACTOR = 2.0**-126  # the last float32 that is rounded as finely as that


cdef int check_length(str name, int64_t size, int64_t wanted) except -1:
    if size != wanted:
        raise ValueError(f"{name} must hold {wanted} values, got {size}")
    return 0


def accumulate_float32(double[::1] acc, const float[::1] x, double weight):
    """acc (P,) float64 += weight * x. Raises ValueError if the lengths differ."""
    cdef int64_t n = acc.shape[0]
    check_length("x", x.shape[0], n)
    if n > 0:
        with nogil:
            kb_accumulate_float32(n, weight, &x[0], &acc[0])


def accumulate_int8(double[::1] acc, const int8_t[::1] q, const float[::1] scales, double weight, *, int block=256):
    """acc (P,) float64 += weight * scale * q for what `quantize_int8` gave. Raises ValueError if the lengths do not fit."""
    cdef int64_t n = acc.shape[0]
    check_length("q", q.shape[0], n)
    check_scales(n, block, 1, scales)
    if n > 0:
        with nogil:
            kb_levels_int8(n, block, weight, &q[0], &scales[0], NULL, &acc[0])


def accumulate_4bit(
    double[::1] acc, const uint8_t[::1] packed, const float[::1] scales, double weight, *, int block=256
):
    """acc (P,) float64 += weight * scale * level for what `quantize_4bit` gave; refuses what `dequantize_4bit` refuses."""
    cdef int64_t n = acc.shape[0]
    check_scales(n, block, 2, scales)
    check_packed(n, 2, packed)
    if n > 0:
        with nogil:
            kb_levels_4bit(n, block, weight, &packed[0], &scales[0], NULL, &acc[0])


def accumulate_2bit(
    double[::1] acc, const uint8_t[::1] packed, const float[::1] scales, double weight, *, int block=256
):
    """acc (P,) float64 += weight * scale * level for what `quantize_2bit` gave; refuses what `dequantize_2bit` refuses."""
    cdef int64_t n = acc.shape[0]
    check_scales(n, block, 4, scales)
    check_packed(n, 4, packed)
    if n > 0:
        with nogil:
            kb_levels_2bit(n, block, weight, &packed[0], &scales[0], NULL, &acc[0])


def accumulate_1bit(
    double[::1] acc, const uint8_t[::1] packed, const float[::1] scales, double weight, *, int block=256
):
    """acc (P,) float64 += weight * ±scale for what `quantize_1bit` or `quantize_sign` gave; refuses what `dequantize_1bit` refuses."""
    cdef int64_t n = acc.shape[0]
    check_scales(n, block, 8, scales)
    check_packed(n, 8, packed)
    if n > 0:
        with nogil:
            kb_levels_1bit(n, block, weight, &packed[0], &scales[0], NULL, &acc[0])


def accumulate_sparse(double[::1] acc, const int32_t[::1] indices, const float[::1] values, double weight):
    """acc (P,) float64 [indices] += weight * values, indices and values (K,).

    Raises ValueError unless the indices ascend strictly within [0, P).
    """
    cdef int64_t k = indices.shape[0]
    check_length("values", values.shape[0], k)
    check_indices("indices", indices, acc.shape[0])
    if k > 0:
        with nogil:
            kb_accumulate_sparse(k, weight, &indices[0], &values[0], &acc[0])


def accumulate_runs(double[::1] acc, const int32_t[::1] changes, const float[::1] values, double weight):
    """acc (P,) float64 += weight * values, in turn, from the first of `changes` (K,) up to before the second, from
    the third up to before the fourth, and so on; to the end of `acc` if K is odd.

    Raises ValueError unless the changes ascend strictly within [0, P) and there is a value for each place.
    """
    cdef int64_t n = acc.shape[0], k = changes.shape[0]
    check_runs(changes, values.shape[0], n)
    if k > 0:
        with nogil:
            kb_accumulate_runs(n, k, weight, &changes[0], &values[0], &acc[0])


def accumulate_sparse_int8(
    double[::1] acc,
    const int32_t[::1] indices,
    const int8_t[::1] q,
    const float[::1] scales,
    double weight,
    *,
    int block=256,
):
    """acc (P,) float64 [indices] += weight * scale * q, indices and q (K,), a scale for each `block` of the K levels.

    Raises ValueError unless the indices ascend strictly within [0, P) and the lengths fit.
    """
    cdef int64_t k = indices.shape[0]
    check_length("q", q.shape[0], k)
    check_scales(k, block, 1, scales)
    check_indices("indices", indices, acc.shape[0])
    if k > 0:
        with nogil:
            kb_accumulate_sparse_int8(k, block, weight, &indices[0], &q[0], &scales[0], &acc[0])


def accumulate_rows(double[:, ::1] acc, const int32_t[::1] rows, const float[:, ::1] values, double weight):
    """acc (V, E) float64 [rows] += weight * values (R, E) for what `gather_rows` gave.

    Raises ValueError unless the rows (R,) ascend strictly within [0, V) and the shapes fit.
    """
    cdef int64_t count = rows.shape[0], width = acc.shape[1]
    if values.shape[0] != count or values.shape[1] != width:
        raise ValueError(f"values must be ({count}, {width}), got ({values.shape[0]}, {values.shape[1]})")
    check_indices("rows", rows, acc.shape[0])
    if count > 0 and width > 0:
        with nogil:
            kb_accumulate_rows(count, width, weight, &rows[0], &values[0, 0], &acc[0, 0])


def accumulate_levels(whole[::1] acc, const int8_t[::1] q, int64_t weight=1):
    """acc (P,) int32 or int64 += weight * q (P,) int8, exactly.

    Raises OverflowError, and leaves `acc` as it was, if a sum does not fit or |weight| exceeds 2^24 - 1 (int32) or
    2^56 - 1 (int64). Raises ValueError if the lengths differ.
    """
    cdef int64_t n = acc.shape[0], limit = (<int64_t>1 << (8 * sizeof(whole) - 8)) - 1
    cdef int overflowed = False
    check_length("q", q.shape[0], n)
    if not -limit <= weight <= limit:
        raise OverflowError(f"weight must be in [-{limit}, {limit}], got {weight}")
    if n > 0:
        with nogil:
            if whole is int32_t:
                overflowed = kb_sum_int32(n, <int32_t>weight, &q[0], &acc[0])
                if overflowed:
                    kb_sum_int32(n, <int32_t>-weight, &q[0], &acc[0])
            else:
                overflowed = kb_sum_int64(n, weight, &q[0], &acc[0])
                if overflowed:
                    kb_sum_int64(n, -weight, &q[0], &acc[0])
    if overflowed:
        raise OverflowError(f"sums must fit {8 * sizeof(whole)} bits, got one that does not")


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


def norm_clip(const float[::1] x, double clip_norm, *, float[::1] out):
    """out (P,) = x * min(1, clip_norm / ||x||), its norm never above `clip_norm`; returns ||x|| to within 2^-23 of it.

    `out` may be x itself, but must not overlap it otherwise; it becomes zeros where the factor is below 2^-126. A
    pass that reads for the norm, and a second one, more precise, if that lies within 2^-22 of `clip_norm` or outside
    [2^-30, 2^60]; then one that scales, or copies what is short enough into another `out`, or none. Raises
    ValueError, with nothing written, if x is not finite, the lengths differ or clip_norm is not finite and > 0.
    """
    cdef int64_t n = x.shape[0]
    cdef double norm = 0, ratio
    cdef float factor
    check_length("out", out.shape[0], n)
    if not (isfinite(clip_norm) and clip_norm > 0):
        raise ValueError(f"clip_norm must be finite and > 0, got {clip_norm}")
    if n == 0:
        return norm
    cdef const float *source = &x[0]
    cdef float *target = &out[0]
    if source != target and source < target + n and target < source + n:
        raise ValueError("out must be x itself or must not overlap it, got a part of it")
    with nogil:
        norm = sqrt(kb_squared_norm_in_fours(n, source))
        if not 2.0**-30 <= norm <= 2.0**60 or fabs(norm - clip_norm) <= 2.0**-22 * clip_norm:
            norm = sqrt(kb_squared_norm(n, source))
        ratio = clip_norm / norm * JUST_INSIDE
        factor = <float>ratio if ratio >= SMALLEST_FACTOR else 0
        if norm > clip_norm and isfinite(norm):
            if source == target:
                kb_scale(n, factor, target)
            else:
                kb_scale_into(n, factor, source, target)
        elif norm <= clip_norm and source != target:
            memcpy(target, source, n * sizeof(float))
    if not isfinite(norm):
        raise ValueError("update must be finite, got a NaN or an infinity")
    return norm
