"""Which coordinates travel: the largest ones, a random set that all devices share, or whole rows.

A set of indices is int32 and ascends. The numpy twins of reference_sparse.py give the same bytes.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from _indices cimport check_indices, check_runs

cdef extern from "largest_simd.h" nogil:
    int64_t CHUNK
    int kb_topk(
        int64_t n, int64_t k, const float *x, int32_t *tops, int32_t *spots, int32_t *magnitudes, int32_t *indices)

cdef extern from "indices_simd.h" nogil:
    void kb_shared_indices(int64_t n, int64_t k, uint64_t seed, uint64_t *taken, int32_t *indices)

cdef extern from "runs_simd.h" nogil:
    int64_t kb_runs(int64_t n, const float *x, int32_t *changes, int64_t *there)

cdef int64_t MOST = 2**31 - 1


cdef int check_count(int64_t n, int64_t k) except -1:
    if not 0 <= n <= MOST:
        raise ValueError(f"n must be in [0, {MOST}], got {n}")
    if not 0 <= k <= n:
        raise ValueError(f"k must be in [0, {n}], got {k}")
    return 0


def topk(const float[::1] x, int64_t k):
    """The k largest magnitudes of `x` (P,) float32: (indices (k,) int32 ascending, values (k,) float32).

    Exact: of equal magnitudes those with the smaller index are taken. Time is linear in P whatever the values are,
    and shortest while k <= P / 16. Raises ValueError for a NaN or an infinity, or unless 0 <= k <= P < 2^31.
    """
    cdef int64_t n = x.shape[0], j
    cdef int status = 0
    check_count(n, k)
    indices, values = np.empty(k, np.int32), np.empty(k, np.float32)
    cdef int32_t[::1] indices_view = indices
    cdef float[::1] values_view = values
    if n == 0:
        return indices, values
    cdef int32_t[::1] tops = np.empty(n // CHUNK + 1, np.int32)
    cdef int64_t candidates = min(n, k * CHUNK)
    cdef int32_t[:, ::1] scratch = np.empty((2, max(candidates, 1)), np.int32)
    cdef int32_t *found = &indices_view[0] if k > 0 else NULL
    with nogil:
        status = kb_topk(n, k, &x[0], &tops[0], &scratch[0, 0], &scratch[1, 0], found)
        if status == 0:
            for j in range(k):
                values_view[j] = x[indices_view[j]]
    if status != 0:
        raise ValueError("values must be finite, got a NaN or an infinity")
    return indices, values


def shared_indices(int64_t n, int64_t k, uint64_t seed):
    """k distinct indices out of [0, n), (k,) int32 ascending: the same set on every machine for the same seed.

    Every set of k is as likely as any other. Raises ValueError unless 0 <= k <= n < 2^31.
    """
    check_count(n, k)
    indices = np.empty(k, np.int32)
    cdef int32_t[::1] indices_view = indices
    cdef uint64_t[::1] taken = np.zeros(n // 64 + 1, np.uint64)
    if k > 0:
        with nogil:
            kb_shared_indices(n, k, seed, &taken[0], &indices_view[0])
    return indices


def gather_rows(const float[:, ::1] x, const int32_t[::1] rows):
    """x (V, E)[rows] as a new (R, E) float32; `accumulate_rows` is the way back.

    Raises ValueError unless the rows (R,) ascend strictly within [0, V).
    """
    cdef int64_t count = rows.shape[0], width = x.shape[1], r
    check_indices("rows", rows, x.shape[0])
    out = np.empty((count, width), np.float32)
    cdef float[:, ::1] out_view = out
    if count > 0 and width > 0:
        with nogil:
            for r in range(count):
                memcpy(&out_view[r, 0], &x[rows[r], 0], width * sizeof(float))
    return out


def gather_runs(const float[::1] x):
    """(changes (K,) int32, values float32): the places where zeros of x (P,) begin or end, and what is not zero.

    Before the first place there are zeros; `scatter_runs` is the way back. Raises ValueError unless P < 2^31.
    """
    cdef int64_t n = x.shape[0], there = 0, count, read = 0, length, j
    check_count(n, 0)
    if n == 0:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    with nogil:
        count = kb_runs(n, &x[0], NULL, &there)
    changes, values = np.empty(count, np.int32), np.empty(there, np.float32)
    cdef int32_t[::1] changes_view = changes
    cdef float[::1] values_view = values
    if count > 0:
        with nogil:
            kb_runs(n, &x[0], &changes_view[0], &there)
            for j in range(0, count, 2):
                length = (changes_view[j + 1] if j + 1 < count else n) - changes_view[j]
                memcpy(&values_view[read], &x[changes_view[j]], length * sizeof(float))
                read += length
    return changes, values


def scatter_runs(const int32_t[::1] changes, const float[::1] values, *, int64_t size):
    """float32 (size,): `values`, in turn, from the first of `changes` (K,) up to before the second, from the third up
    to before the fourth, and so on, to the end if K is odd; zeros elsewhere.

    Raises ValueError unless the changes ascend strictly within [0, size) and there is a value for each place.
    """
    cdef int64_t k = changes.shape[0], read = 0, length, j
    check_runs(changes, values.shape[0], size)
    out = np.zeros(size, np.float32)
    cdef float[::1] out_view = out
    if values.shape[0] > 0:
        with nogil:
            for j in range(0, k, 2):
                length = (changes[j + 1] if j + 1 < k else size) - changes[j]
                memcpy(&out_view[changes[j]], &values[read], length * sizeof(float))
                read += length
    return out
