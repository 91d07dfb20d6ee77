# Declarations of _simd.h, where the loops are explained.
from libc.stdint cimport int64_t

cdef extern from "_simd.h" nogil:
    void kb_cell_forward(int n, int H, float *z, const float *c_prev, float *c, float *tc, float *m)
    void kb_cell_backward(int n, int H, float *z, const float *c_prev, const float *tc, const float *dm, float *dc)
    float kb_softmax_row(int V, float *x, const float *bias, int target, float scale)
    int kb_rank_row(int V, float *x, const float *bias, int target, int first, float *loss)
    void kb_add_rows(int n, int C, const float *a, float *out)
    void kb_add(int64_t n, const float *a, float *out)
    double kb_sum_squares(int64_t n, const float *x)
    void kb_descend(int64_t n, float step, const float *g, float *x)
    void kb_subtract(int64_t n, const float *a, const float *b, float *out)
