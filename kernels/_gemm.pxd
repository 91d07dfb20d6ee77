# Declarations of _gemm.h, where the products are explained.
from libc.stdint cimport int64_t

cdef extern from "_gemm.h" nogil:
    enum: KB_PANEL
    enum: KB_ALIGN
    size_t kb_packed_floats(size_t K, size_t M)
    void kb_pack(int M, int K, const float *source, int64_t sk, int64_t sm, float *packed)
    void kb_gemm(
        int M, int N, int K, const float *panel, int64_t stride, int64_t next, const float *b, int64_t bk, int64_t bj,
        const float *start, int64_t ldf, float *c, int64_t ldc,
    )
    ctypedef void (*kb_gemm_function)(
        int M, int N, int K, const float *panel, int64_t stride, int64_t next, const float *b, int64_t bk, int64_t bj,
        const float *start, int64_t ldf, float *c, int64_t ldc,
    )
    enum: KB_BASE
    enum: KB_AVX2
    enum: KB_AVX512
    kb_gemm_function kb_gemm_of(int instructions)
