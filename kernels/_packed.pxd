# The sizes of packed batches (kbdfl.text.PackedBatches), for whoever walks through them.
cdef struct Capacity:  # of the largest batch
    size_t rows
    size_t sentences


cdef inline int batch_rows(const int *active, int T) noexcept nogil:
    """N, the rows of one batch of T steps."""
    cdef int t, N = 0
    for t in range(T):
        N += active[t]
    return N


cdef inline Capacity capacity(const int[::1] active, const int[::1] steps) noexcept nogil:
    """What scratch memory must hold; zeros when there is no batch."""
    cdef Capacity most
    cdef Py_ssize_t k, at = 0
    most.rows = most.sentences = 0
    for k in range(steps.shape[0]):
        most.rows = max(most.rows, <size_t> batch_rows(&active[at], steps[k]))
        most.sentences = max(most.sentences, <size_t> active[at])
        at += steps[k]
    return most
