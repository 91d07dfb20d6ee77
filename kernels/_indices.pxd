# What must hold of indices before a kernel may touch memory by them.
from libc.stdint cimport int32_t, int64_t

cdef extern from "indices_simd.h" nogil:
    int kb_ascends(int64_t k, const int32_t *indices)


cdef inline int check_indices(str name, const int32_t[::1] indices, int64_t n) except -1:
    """That `indices` (K,) ascend strictly within [0, n), so that they are distinct as well."""
    cdef int64_t k = indices.shape[0]
    if k == 0:
        return 0
    if not kb_ascends(k, &indices[0]):
        raise ValueError(f"{name} must ascend strictly, got some that do not")
    if indices[0] < 0 or indices[k - 1] >= n:
        raise ValueError(f"{name} must lie in [0, {n}), got {indices[0] if indices[0] < 0 else indices[k - 1]}")
    return 0


cdef inline int check_runs(const int32_t[::1] changes, int64_t values, int64_t n) except -1:
    """That `changes` (K,) ascend, and that there are as many `values` as places between the first and the second, the
    third and the fourth, and so on; the end is n if K is odd."""
    cdef int64_t k = changes.shape[0], length = 0, j
    check_indices("changes", changes, n)
    with nogil:
        for j in range(k):
            length += changes[j] if j % 2 else -changes[j]
    length += n if k % 2 else 0
    if values != length:
        raise ValueError(f"values must hold {length} values, got {values}")
    return 0
