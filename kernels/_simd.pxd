# Declarations of _simd.h, where the loops are explained.
from libc.stdint cimport int64_t

cdef extern from "_simd.h" nogil:
    void kb_cell_forward(int n, int H, float *z, const float *c_prev, float *c, float *tc, float *m)
    void kb_cell_backward(int n, int H, float *z, const float *c_prev, float *tc, const float *dm, float *dc)
    void kb_add_bias(int words, int R, float *x, const float *bias, float *peak)
    void kb_exp_block(int words, int R, float *x, const float *before, const float *peak, float *total)
    void kb_scale_block(
        int words, int R, float *x, const float *then, const float *peak, const float *scale, float *factor,
        float *sums,
    )
    void kb_rank_block(
        int start, int words, int R, const float *x, const float *own, const int *targets, int first, int *ranks
    )
    void kb_prefetch(const float *p, int64_t floats)
    void kb_add_rows(int n, int C, int64_t stride, const float *a, float *out)
    void kb_add(int64_t n, const float *a, float *out)
    void kb_descend(int64_t n, float step, const float *g, float *x)
    void kb_descend_bent(
        int64_t n, float rate, float share, float proximal, float momentum, const float *g, const float *origin,
        const float *correction, float *v, float *x,
    )
    void kb_subtract(int64_t n, const float *a, const float *b, float *out)

cdef extern from "norm_simd.h" nogil:
    double kb_squared_norm(int64_t n, const float *x)
