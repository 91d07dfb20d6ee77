/* The CIFG LSTM with projection over one packed batch: forward and backward. Equations: kbdfl/model/cifg.py.
 *
 * Shapes: V words, E embedding, H cells; N packed rows, active[t] of them alive at step t (never increasing), so step
 * t's rows follow those of step t - 1 and row i of a step continues row i of the step before.
 */
#ifndef KBDFL_CIFG_H
#define KBDFL_CIFG_H

#include "_gemm.h"
#include "_simd.h"

typedef struct {
    int V, E, H;
} kb_dims;

typedef struct {  /* slices of one flat vector, in its order */
    float *emb;   /* (V,E) */
    float *wx;    /* (E,3H) */
    float *bg;    /* (3H,) */
    float *wh;    /* (E,3H) */
    float *wp;    /* (H,E) */
    float *bias;  /* (V,) */
} kb_params;

typedef struct {   /* of N rows, and of B sentences in the step at hand */
    float *x;      /* (N,E)  embedded inputs */
    float *h;      /* (N,E)  recurrent input of the row: r of the step before, zero at first */
    float *z;      /* (N,3H) gates; their gradient after backward */
    float *c;      /* (N,H) */
    float *tc;     /* (N,H)  tanh(c); after backward m again */
    float *r;      /* (N,E)  output */
    float *dr;     /* (N,E)  gradient at the output; then at the input */
    float *m;      /* (B,H)  before the projection; in backward its gradient */
    float *dc;     /* (B,H) */
    float *packed; /* the weights as panels: one memory, first for forward, then for backward */
} kb_activations;

/* Scratch memory from which arrays are taken one after another; without a base nothing but their size is counted. */
typedef struct {
    float *base;
    size_t used; /* floats */
} kb_memory;

static inline size_t kb_larger(size_t a, size_t b) { return a > b ? a : b; }
static inline int kb_least(int a, int b) { return a < b ? a : b; }

/* P, the length of the flat vector. */
static inline size_t kb_parameter_floats(kb_dims d) {
    const size_t E = (size_t)d.E, H = (size_t)d.H, V = (size_t)d.V;
    return V * E + E * 3 * H + 3 * H + E * 3 * H + H * E + V;
}

static inline kb_params kb_slice_params(kb_dims d, float *flat) {
    const size_t E = (size_t)d.E, H = (size_t)d.H, V = (size_t)d.V;
    kb_params p;
    p.emb = flat;
    p.wx = p.emb + V * E;
    p.bg = p.wx + E * 3 * H;
    p.wh = p.bg + 3 * H;
    p.wp = p.wh + E * 3 * H;
    p.bias = p.wp + H * E;
    return p;
}

/* The next `floats` of a scratch memory, rounded up so that what follows stays aligned and a last row may be read
 * beyond its end. */
static inline float *kb_take(kb_memory *memory, size_t floats) {
    float *taken = memory->base ? memory->base + memory->used : NULL;
    memory->used += (floats + KB_ALIGN - 1) / KB_ALIGN * KB_ALIGN + KB_ALIGN;
    return taken;
}

/* Without `packed`, which its owner lays over other memory. */
static inline kb_activations kb_take_activations(kb_dims d, kb_memory *memory, size_t N, size_t B) {
    const size_t E = (size_t)d.E, H = (size_t)d.H;
    kb_activations s;
    s.x = kb_take(memory, N * E);
    s.h = kb_take(memory, N * E);
    s.r = kb_take(memory, N * E);
    s.dr = kb_take(memory, N * E);
    s.z = kb_take(memory, N * 3 * H);
    s.c = kb_take(memory, N * H);
    s.tc = kb_take(memory, N * H);
    s.m = kb_take(memory, B * H);
    s.dc = kb_take(memory, B * H);
    s.packed = NULL;
    return s;
}

/* What kb_activations.packed must hold for N rows. */
static inline size_t kb_cifg_packed_floats(kb_dims d, size_t N) {
    const size_t E = (size_t)d.E, H = (size_t)d.H;
    const size_t forward = 2 * kb_packed_floats(E, 3 * H) + kb_packed_floats(H, E);
    const size_t backward = kb_packed_floats(E, H) + 2 * kb_packed_floats(3 * H, E) + kb_packed_floats(N, KB_PANEL);
    return kb_larger(forward, backward);
}

/* c (N,M) = start (N,M, or NULL for zeros) + b times a packed (K,M): kb_gemm with one row stride. */
static inline void kb_times(int M, int N, int K, const float *packed, const float *b, int64_t bk, int64_t bj,
                            const float *start, float *c, int ldc) {
    kb_gemm(M, N, K, packed, KB_PANEL, (int64_t)K * KB_PANEL, b, bk, bj, start, ldc, c, ldc);
}

/* Fill s.x, s.h, s.z (activated), s.c, s.tc, s.r for the batch's N rows. */
static void kb_cifg_forward(kb_dims d, kb_params p, kb_activations s, const int *inputs, const int *active, int T,
                            int N) {
    const int E = d.E, H = d.H, G = 3 * d.H;
    float *wx = s.packed;
    float *wh = wx + kb_packed_floats((size_t)E, (size_t)G);
    float *wp = wh + kb_packed_floats((size_t)E, (size_t)G);
    kb_pack(G, E, p.wx, G, 1, wx);
    kb_pack(G, E, p.wh, G, 1, wh);
    kb_pack(E, H, p.wp, E, 1, wp);
    for (int i = 0; i < N; i++)
        memcpy(s.x + (size_t)i * E, p.emb + (size_t)inputs[i] * E, (size_t)E * sizeof(float));
    /* all steps' inputs at once, onto the bias */
    kb_gemm(G, N, E, wx, KB_PANEL, (int64_t)E * KB_PANEL, s.x, 1, E, p.bg, 0, s.z, G);
    for (int t = 0, row = 0, previous = 0; t < T; t++) {
        const int n = active[t];
        float *z = s.z + (size_t)row * G, *h = s.h + (size_t)row * E;
        float *c = s.c + (size_t)row * H, *tc = s.tc + (size_t)row * H;
        if (t == 0) {
            memset(h, 0, (size_t)n * E * sizeof(float));
            kb_cell_forward(n, H, z, NULL, c, tc, s.m);
        } else {
            memcpy(h, s.r + (size_t)previous * E, (size_t)n * E * sizeof(float));
            kb_times(G, n, E, wh, h, 1, E, z, z, G);
            kb_cell_forward(n, H, z, s.c + (size_t)previous * H, c, tc, s.m);
        }
        kb_times(E, n, H, wp, s.m, 1, H, NULL, s.r + (size_t)row * E, E);
        previous = row;
        row += n;
    }
}

/* Backward through time from s.dr; sets g.wx, g.bg, g.wh, g.wp and adds to the rows of g.emb that were read. */
static void kb_cifg_backward(kb_dims d, kb_params p, kb_params g, kb_activations s, const int *inputs,
                             const int *active, int T, int N) {
    const int E = d.E, H = d.H, G = 3 * d.H;
    float *wp = s.packed;
    float *wh = wp + kb_packed_floats((size_t)E, (size_t)H);
    float *wx = wh + kb_packed_floats((size_t)G, (size_t)E);
    float *panel = wx + kb_packed_floats((size_t)G, (size_t)E);
    kb_pack(H, E, p.wp, 1, E, wp);
    kb_pack(E, G, p.wh, 1, G, wh);
    kb_pack(E, G, p.wx, 1, G, wx);
    for (int t = T - 1, row = N, alive_after = 0; t >= 0; t--) {
        const int n = active[t];
        row -= n;
        const int previous = t > 0 ? row - active[t - 1] : 0;
        float *z = s.z + (size_t)row * G;
        /* sentences that end at this step bring no gradient from a later one */
        memset(s.dc + (size_t)alive_after * H, 0, (size_t)(n - alive_after) * H * sizeof(float));
        kb_times(H, n, E, wp, s.dr + (size_t)row * E, 1, E, NULL, s.m, H);
        kb_cell_backward(n, H, z, t == 0 ? NULL : s.c + (size_t)previous * H, s.tc + (size_t)row * H, s.m, s.dc);
        if (t > 0) {
            float *before = s.dr + (size_t)previous * E;
            kb_times(E, n, G, wh, z, 1, G, before, before, E);
        }
        alive_after = n;
    }
    kb_gemm(E, H, N, s.dr, E, KB_PANEL, s.tc, H, 1, NULL, 0, g.wp, E);
    memset(g.bg, 0, (size_t)G * sizeof(float));
    for (int first = 0; first < G; first += KB_PANEL) {
        const int lanes = kb_least(KB_PANEL, G - first);
        kb_pack(lanes, N, s.z + first, G, 1, panel);
        kb_times(lanes, E, N, panel, s.h, E, 1, NULL, g.wh + first, G);
        kb_times(lanes, E, N, panel, s.x, E, 1, NULL, g.wx + first, G);
        kb_add_rows(N, lanes, KB_PANEL, panel, g.bg + first);
    }
    kb_times(E, N, G, wx, s.z, 1, G, NULL, s.dr, E);
    for (int i = 0; i < N; i++) kb_add(E, s.dr + (size_t)i * E, g.emb + (size_t)inputs[i] * E);
}

#endif
