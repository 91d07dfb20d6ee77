# Row-major sgemm over scipy's OpenBLAS, callable without the interpreter.
from scipy.linalg.cython_blas cimport sgemm


cdef inline void gemm(
    bint transpose_a, bint transpose_b, int m, int n, int k,
    const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc,
) noexcept nogil:
    """c (m,n) = op(a) (m,k) op(b) (k,n) + beta c; ld* are the row strides of the arrays as they are stored."""
    cdef float one = 1.0
    cdef char ta = c'T' if transpose_a else c'N'
    cdef char tb = c'T' if transpose_b else c'N'
    if m == 0 or n == 0:
        return
    # BLAS is column-major: the same memory read that way holds the transposes, so compute c^T = b^T a^T.
    sgemm(&tb, &ta, &n, &m, &k, &one, <float *> b, &ldb, <float *> a, &lda, &beta, c, &ldc)
