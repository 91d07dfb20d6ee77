# The CIFG LSTM with projection over one packed batch: forward and backward, header-only so that train.pyx and
# score.pyx share them. Equations: kbdfl/model/cifg.py. Shapes: V words, E embedding, H cells; N packed rows,
# active[t] of them alive at step t (never increasing), so step t's rows follow those of step t - 1 and row i
# of a step continues row i of the step before.
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from _gemm cimport KB_ALIGN, KB_PANEL, kb_gemm, kb_pack, kb_packed_floats
from _simd cimport kb_add, kb_add_rows, kb_cell_backward, kb_cell_forward


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


cdef struct Activations:  # of N rows, and of B sentences in the step at hand
    float *x   # (N,E)  embedded inputs
    float *h   # (N,E)  recurrent input of the row: r of the step before, zero at first
    float *z   # (N,3H) gates; their gradient after backward
    float *c   # (N,H)
    float *tc  # (N,H)  tanh(c); after backward m again
    float *r   # (N,E)  output
    float *dr  # (N,E)  gradient at the output; then at the input
    float *m   # (B,H)  before the projection; in backward its gradient
    float *dc  # (B,H)
    float *packed  # the weights as panels: one memory, first for forward, then for backward


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


cdef inline float *take(float **memory, size_t floats) noexcept nogil:
    """The next `floats` of a scratch memory, rounded up so that what follows stays aligned and a last row may be
    read beyond its end."""
    cdef float *taken = memory[0]
    memory[0] += (floats + KB_ALIGN - 1) // KB_ALIGN * KB_ALIGN + KB_ALIGN
    return taken


cdef inline Activations take_activations(Dims d, float **memory, size_t N, size_t B) noexcept nogil:
    """Without `packed`, which its owner lays over other memory."""
    cdef Activations s
    cdef size_t E = d.E, H = d.H
    s.x, s.h, s.r, s.dr = take(memory, N * E), take(memory, N * E), take(memory, N * E), take(memory, N * E)
    s.z = take(memory, N * 3 * H)
    s.c, s.tc = take(memory, N * H), take(memory, N * H)
    s.m, s.dc = take(memory, B * H), take(memory, B * H)
    s.packed = NULL
    return s


cdef inline size_t packed_floats(Dims d, size_t N) noexcept nogil:
    """What Activations.packed must hold for N rows."""
    cdef size_t E = d.E, H = d.H
    cdef size_t forward = 2 * kb_packed_floats(E, 3 * H) + kb_packed_floats(H, E)
    cdef size_t backward = kb_packed_floats(E, H) + 2 * kb_packed_floats(3 * H, E) + kb_packed_floats(N, KB_PANEL)
    return max(forward, backward)


cdef inline void times(
    int M, int N, int K, const float *packed, const float *b, int64_t bk, int64_t bj, const float *start, float *c,
    int ldc,
) noexcept nogil:
    """c (N,M) = start (N,M, or NULL for zeros) + b times a packed (K,M): kb_gemm with one row stride."""
    kb_gemm(M, N, K, packed, KB_PANEL, <int64_t> K * KB_PANEL, b, bk, bj, start, ldc, c, ldc)


cdef inline void cifg_forward(
    Dims d, Params p, Activations s, const int *inputs, const int *active, int T, int N
) noexcept nogil:
    """Fill s.x, s.h, s.z (activated), s.c, s.tc, s.r for the batch's N rows."""
    cdef int t, i, n, row = 0, previous = 0, E = d.E, H = d.H, G = 3 * d.H
    cdef float *wx = s.packed
    cdef float *wh = wx + kb_packed_floats(E, G)
    cdef float *wp = wh + kb_packed_floats(E, G)
    kb_pack(G, E, p.wx, G, 1, wx)
    kb_pack(G, E, p.wh, G, 1, wh)
    kb_pack(E, H, p.wp, E, 1, wp)
    for i in range(N):
        memcpy(s.x + <size_t> i * E, p.emb + <size_t> inputs[i] * E, E * sizeof(float))
    # all steps' inputs at once, onto the bias
    kb_gemm(G, N, E, wx, KB_PANEL, <int64_t> E * KB_PANEL, s.x, 1, E, p.bg, 0, s.z, G)
    for t in range(T):
        n = active[t]
        z, h, c, tc = s.z + <size_t> row * G, s.h + <size_t> row * E, s.c + <size_t> row * H, s.tc + <size_t> row * H
        if t == 0:
            memset(h, 0, <size_t> n * E * sizeof(float))
            kb_cell_forward(n, H, z, NULL, c, tc, s.m)
        else:
            memcpy(h, s.r + <size_t> previous * E, <size_t> n * E * sizeof(float))
            times(G, n, E, wh, h, 1, E, z, z, G)
            kb_cell_forward(n, H, z, s.c + <size_t> previous * H, c, tc, s.m)
        times(E, n, H, wp, s.m, 1, H, NULL, s.r + <size_t> row * E, E)
        previous = row
        row += n


cdef inline void cifg_backward(
    Dims d, Params p, Params g, Activations s, const int *inputs, const int *active, int T, int N
) noexcept nogil:
    """Backward through time from s.dr; sets g.wx, g.bg, g.wh, g.wp and adds to the rows of g.emb that were read."""
    cdef int t, i, n, first, lanes, row = N, previous, alive_after = 0, E = d.E, H = d.H, G = 3 * d.H
    cdef float *wp = s.packed
    cdef float *wh = wp + kb_packed_floats(E, H)
    cdef float *wx = wh + kb_packed_floats(G, E)
    cdef float *panel = wx + kb_packed_floats(G, E)
    kb_pack(H, E, p.wp, 1, E, wp)
    kb_pack(E, G, p.wh, 1, G, wh)
    kb_pack(E, G, p.wx, 1, G, wx)
    for t in range(T - 1, -1, -1):
        n = active[t]
        row -= n
        previous = row - active[t - 1] if t > 0 else 0
        z = s.z + <size_t> row * G
        # sentences that end at this step bring no gradient from a later one
        memset(s.dc + <size_t> alive_after * H, 0, <size_t> (n - alive_after) * H * sizeof(float))
        times(H, n, E, wp, s.dr + <size_t> row * E, 1, E, NULL, s.m, H)
        kb_cell_backward(
            n, H, z, NULL if t == 0 else s.c + <size_t> previous * H, s.tc + <size_t> row * H, s.m, s.dc
        )
        if t > 0:
            before = s.dr + <size_t> previous * E
            times(E, n, G, wh, z, 1, G, before, before, E)
        alive_after = n
    kb_gemm(E, H, N, s.dr, E, KB_PANEL, s.tc, H, 1, NULL, 0, g.wp, E)
    memset(g.bg, 0, <size_t> G * sizeof(float))
    for i in range((G + KB_PANEL - 1) // KB_PANEL):
        first = i * KB_PANEL
        lanes = min(<int> KB_PANEL, G - first)
        kb_pack(lanes, N, s.z + first, G, 1, panel)
        times(lanes, E, N, panel, s.h, E, 1, NULL, g.wh + first, G)
        times(lanes, E, N, panel, s.x, E, 1, NULL, g.wx + first, G)
        kb_add_rows(N, lanes, KB_PANEL, panel, g.bg + first)
    times(E, N, G, wx, s.z, 1, G, NULL, s.dr, E)
    for i in range(N):
        kb_add(E, s.dr + <size_t> i * E, g.emb + <size_t> inputs[i] * E)
