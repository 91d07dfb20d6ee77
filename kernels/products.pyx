"""The matrix product that training and scoring are built of, by itself: to test every variant, and to measure."""

import numpy as np

from _gemm cimport (
    KB_ALIGN, KB_AVX2, KB_AVX512, KB_BASE, KB_PANEL, kb_gemm_function, kb_gemm_of, kb_pack, kb_packed_floats,
)

_VARIANTS = {"avx512": KB_AVX512, "avx2": KB_AVX2, "base": KB_BASE}


def variants() -> list[str]:
    """The instruction sets that this build and this processor have, the one in use first."""
    return [name for name, number in _VARIANTS.items() if kb_gemm_of(number) != NULL]


def product(const float[:, ::1] a, const float[:, ::1] b, start=None, *, str variant=None):
    """a (N,K) b (K,M), plus `start` (N,M) if given: float32 (N,M), each number summed in the order of k.

    Raises ValueError where the shapes do not fit or the variant is not among `variants()`.
    """
    variant = variant or variants()[0]
    if variant not in variants():
        raise ValueError(f"variant must be among {', '.join(variants())}, got {variant}")
    cdef Py_ssize_t N = a.shape[0], K = a.shape[1], M = b.shape[1]
    if b.shape[0] != K:
        raise ValueError(f"b must have {K} rows, got {b.shape[0]}")
    if start is not None and start.shape != (N, M):
        raise ValueError(f"start must have the shape {(N, M)}, got {start.shape}")
    result = np.zeros((N, M), np.float32) if start is None else np.array(start, np.float32, order="C")
    if N == 0 or M == 0 or K == 0:
        return result
    packed = np.empty(kb_packed_floats(K, M) + KB_ALIGN, np.float32)
    cdef float[:, ::1] c = result
    cdef float[::1] panels = packed
    cdef kb_gemm_function gemm = kb_gemm_of(_VARIANTS[variant])
    with nogil:
        kb_pack(<int> M, <int> K, &b[0, 0], M, 1, &panels[0])
        gemm(<int> M, <int> N, <int> K, &panels[0], KB_PANEL, K * KB_PANEL, &a[0, 0], 1, K, &c[0, 0], M, &c[0, 0], M)
    return result
