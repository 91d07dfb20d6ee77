# The CIFG LSTM with projection over one packed batch: forward and backward, header-only so that train.pyx and
# score.pyx share them. Equations: kbdfl/model/cifg.py. Shapes: V words, E embedding, H cells; N packed rows,
# active[t] of them alive at step t (never increasing), so step t's rows follow those of step t - 1 and row i
# of a step continues row i of the step before.
from libc.string cimport memcpy, memset

from _blas cimport gemm
from _simd cimport kb_add, kb_add_rows, kb_cell_backward, kb_cell_forward, kb_rank_row, kb_softmax_row

cdef enum:
    HEAD_ROWS = 64  # rows of logits computed at once: they stay in the cache and scratch stays small


cdef struct Dims:
    int V
    int E
    int H


cdef struct Params:  # slices of one flat vector, in its order
    float *emb   # (V,E)
    float *wx    # (E,3H)
    float *bg    # (3H,)
    float *wh    # (E,3H)
    float *wp    # (H,E)
    float *bias  # (V,)


cdef struct Scratch:  # for N rows
    float *x       # (N,E)  embedded inputs
    float *h       # (N,E)  recurrent input of the row: r of the step before, zero at first
    float *z       # (N,3H) gates; their gradient after backward
    float *c       # (N,H)
    float *tc      # (N,H)  tanh(c)
    float *m       # (N,H)  before the projection
    float *r       # (N,E)  output
    float *dr      # (N,E)  gradient at the output; then at the input
    float *dm      # (B,H)
    float *dc      # (B,H)
    float *logits  # (HEAD_ROWS,V)


cdef inline size_t parameter_floats(Dims d) noexcept nogil:
    """P, the length of the flat vector."""
    cdef size_t E = d.E, H = d.H, V = d.V
    return V * E + E * 3 * H + 3 * H + E * 3 * H + H * E + V


cdef inline Params slice_params(Dims d, float *flat) noexcept nogil:
    cdef Params p
    cdef size_t E = d.E, H = d.H, V = d.V
    p.emb = flat
    p.wx = p.emb + V * E
    p.bg = p.wx + E * 3 * H
    p.wh = p.bg + 3 * H
    p.wp = p.wh + E * 3 * H
    p.bias = p.wp + H * E
    return p


cdef inline size_t scratch_floats(Dims d, size_t N, size_t B) noexcept nogil:
    return N * (4 * d.E + 6 * d.H) + 2 * B * d.H + <size_t> HEAD_ROWS * d.V


cdef inline Scratch slice_scratch(Dims d, float *flat, size_t N, size_t B) noexcept nogil:
    cdef Scratch s
    s.x = flat
    s.h = s.x + N * d.E
    s.z = s.h + N * d.E
    s.c = s.z + N * 3 * d.H
    s.tc = s.c + N * d.H
    s.m = s.tc + N * d.H
    s.r = s.m + N * d.H
    s.dr = s.r + N * d.E
    s.dm = s.dr + N * d.E
    s.dc = s.dm + B * d.H
    s.logits = s.dc + B * d.H
    return s


cdef inline void cifg_forward(
    Dims d, Params p, Scratch s, const int *inputs, const int *active, int T, int N
) noexcept nogil:
    """Fill s.x, s.h, s.z (activated), s.c, s.tc, s.m, s.r for the batch's N rows."""
    cdef int t, i, n, row = 0, previous = 0
    cdef size_t E = d.E, H = d.H, G = 3 * d.H
    for i in range(N):
        memcpy(s.x + i * E, p.emb + inputs[i] * E, E * sizeof(float))
        memcpy(s.z + i * G, p.bg, G * sizeof(float))
    gemm(False, False, N, 3 * d.H, d.E, s.x, d.E, p.wx, 3 * d.H, 1.0, s.z, 3 * d.H)  # all steps' inputs at once
    for t in range(T):
        n = active[t]
        if t == 0:
            memset(s.h, 0, n * E * sizeof(float))
        else:
            memcpy(s.h + row * E, s.r + previous * E, n * E * sizeof(float))
            gemm(False, False, n, 3 * d.H, d.E, s.h + row * E, d.E, p.wh, 3 * d.H, 1.0, s.z + row * G, 3 * d.H)
        kb_cell_forward(
            n, d.H, s.z + row * G, NULL if t == 0 else s.c + previous * H, s.c + row * H, s.tc + row * H, s.m + row * H
        )
        gemm(False, False, n, d.E, d.H, s.m + row * H, d.H, p.wp, d.E, 0.0, s.r + row * E, d.E)
        previous = row
        row += n


cdef inline double head_forward_backward(
    Dims d, Params p, Params g, Scratch s, const int *targets, int N, int learned
) noexcept nogil:
    """Cross-entropy over all V words, in tiles of HEAD_ROWS rows; the loss is the sum over the learned rows.

    Writes d(mean loss)/dr to s.dr and begins the gradient: g.emb and g.bias are set (not added to).
    """
    cdef int tile, start, rows, i
    cdef double loss = 0.0
    cdef float scale = 1.0 / learned if learned > 0 else 0.0
    cdef size_t E = d.E, V = d.V
    memset(g.bias, 0, V * sizeof(float))
    for tile in range((N + HEAD_ROWS - 1) // HEAD_ROWS):
        start = tile * HEAD_ROWS
        rows = min(<int> HEAD_ROWS, N - start)
        gemm(False, True, rows, d.V, d.E, s.r + start * E, d.E, p.emb, d.E, 0.0, s.logits, d.V)
        for i in range(rows):
            loss += kb_softmax_row(d.V, s.logits + i * V, p.bias, targets[start + i], scale)
        kb_add_rows(rows, d.V, s.logits, g.bias)
        gemm(False, False, rows, d.E, d.V, s.logits, d.V, p.emb, d.E, 0.0, s.dr + start * E, d.E)
        gemm(True, False, d.V, d.E, rows, s.logits, d.V, s.r + start * E, d.E, 0.0 if start == 0 else 1.0, g.emb, d.E)
    return loss


cdef inline void cifg_backward(
    Dims d, Params p, Params g, Scratch s, const int *inputs, const int *active, int T, int N
) noexcept nogil:
    """Backward through time from s.dr; sets g.wx, g.bg, g.wh, g.wp and adds to the rows of g.emb that were read."""
    cdef int t, i, n, row = N, previous, alive_after = 0
    cdef size_t E = d.E, H = d.H, G = 3 * d.H
    for t in range(T - 1, -1, -1):
        n = active[t]
        row -= n
        previous = row - active[t - 1] if t > 0 else 0
        # sentences that end at this step bring no gradient from a later one
        memset(s.dc + alive_after * H, 0, (n - alive_after) * H * sizeof(float))
        gemm(False, True, n, d.H, d.E, s.dr + row * E, d.E, p.wp, d.E, 0.0, s.dm, d.H)
        kb_cell_backward(
            n, d.H, s.z + row * G, NULL if t == 0 else s.c + previous * H, s.tc + row * H, s.dm, s.dc
        )
        if t > 0:
            gemm(False, True, n, d.E, 3 * d.H, s.z + row * G, 3 * d.H, p.wh, 3 * d.H, 1.0, s.dr + previous * E, d.E)
        alive_after = n
    gemm(True, False, d.H, d.E, N, s.m, d.H, s.dr, d.E, 0.0, g.wp, d.E)
    gemm(True, False, d.E, 3 * d.H, N, s.h, d.E, s.z, 3 * d.H, 0.0, g.wh, 3 * d.H)
    gemm(True, False, d.E, 3 * d.H, N, s.x, d.E, s.z, 3 * d.H, 0.0, g.wx, 3 * d.H)
    memset(g.bg, 0, G * sizeof(float))
    kb_add_rows(N, 3 * d.H, s.z, g.bg)
    gemm(False, True, N, d.E, 3 * d.H, s.z, 3 * d.H, p.wx, 3 * d.H, 0.0, s.dr, d.E)
    for i in range(N):
        kb_add(d.E, s.dr + i * E, g.emb + inputs[i] * E)


cdef inline void head_score(
    Dims d, Params p, Scratch s, const int *targets, int N, int first_word, float *losses, int *ranks
) noexcept nogil:
    """Per row: -log p(target) and how many suggestible words score above it; target -1 gives NaN-free 0 and -1."""
    cdef int tile, start, rows, i
    cdef size_t E = d.E, V = d.V
    for tile in range((N + HEAD_ROWS - 1) // HEAD_ROWS):
        start = tile * HEAD_ROWS
        rows = min(<int> HEAD_ROWS, N - start)
        gemm(False, True, rows, d.V, d.E, s.r + start * E, d.E, p.emb, d.E, 0.0, s.logits, d.V)
        for i in range(rows):
            if targets[start + i] < 0:
                losses[start + i] = 0.0
                ranks[start + i] = -1
            else:
                ranks[start + i] = kb_rank_row(
                    d.V, s.logits + i * V, p.bias, targets[start + i], first_word, losses + start + i
                )
