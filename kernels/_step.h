/* One step of the model for one sentence: what a keyboard computes after each word. Shapes as in _cifg.h.
 *
 * The weights are read where they lie, even in a file that is mapped into memory: packing them would cost more than
 * the products do. The recurrence is that of _cifg.h to the bit.
 */
#ifndef KBDFL_STEP_H
#define KBDFL_STEP_H

#include <math.h>

#include "_cifg.h"

#define KB_FIRST_WORD 4 /* ids below are <pad> <unk> <bos> <eos>: never suggested (kbdfl/model/cifg.py) */
#define KB_DOT_LANES 16

typedef struct {
    float *z;    /* (3H,) */
    float *c;    /* (H,) */
    float *tc;   /* (H,) */
    float *m;    /* (H,) */
    float *edge; /* (E or H,KB_PANEL) the last columns of a matrix */
} kb_step_scratch;

static inline kb_step_scratch kb_take_step(kb_dims d, kb_memory *memory) {
    const size_t H = (size_t)d.H;
    const int ragged = 3 * d.H % KB_ALIGN ? d.E : 0, ragged_too = d.E % KB_ALIGN ? d.H : 0;
    kb_step_scratch s;
    s.z = kb_take(memory, 3 * H);
    s.c = kb_take(memory, H);
    s.tc = kb_take(memory, H);
    s.m = kb_take(memory, H);
    s.edge = kb_take(memory, kb_larger((size_t)ragged, (size_t)ragged_too) * KB_PANEL);
    return s;
}

/* c (M,) = start (M,) + b (K,) times a (K,M). A panel is read in whole vectors, so the last columns are copied: beyond
 * them there may be no memory. */
static inline void kb_row_times(int M, int K, const float *a, const float *b, const float *start, float *c,
                                float *edge) {
    const int whole = M / KB_ALIGN * KB_ALIGN;
    kb_gemm(whole, 1, K, a, M, KB_PANEL, b, 1, 0, start, 0, c, 0);
    if (whole == M) return;
    kb_pack(M - whole, K, a + whole, M, 1, edge);
    kb_gemm(M - whole, 1, K, edge, KB_PANEL, 0, b, 1, 0, start ? start + whole : NULL, 0, c + whole, 0);
}

/* out (n,) = a (n,E) times x (E,) + bias (n,), each in KB_DOT_LANES partial sums: a fixed order, whatever the vector
 * width. */
KBDFL_CLONES static void kb_dot_rows(int n, int E, const float *restrict a, const float *restrict x,
                                     const float *restrict bias, float *restrict out) {
    const int whole = E - E % KB_DOT_LANES;
    for (int v = 0; v < n; v++, a += E) {
        float lanes[KB_DOT_LANES] = {0}, total = 0.0f;
        for (int j = 0; j < whole; j += KB_DOT_LANES)
            for (int k = 0; k < KB_DOT_LANES; k++) lanes[k] += a[j + k] * x[j + k];
        for (int j = whole; j < E; j++) lanes[j - whole] += a[j] * x[j];
        for (int k = 0; k < KB_DOT_LANES; k++) total += lanes[k];
        out[v] = total + bias[v];
    }
}

/* Read `token`: r (E,) and c (H,) become the next state, logits (V,) those of the next word. */
static void kb_step(kb_dims d, kb_params p, kb_step_scratch s, int token, float *r, float *c, float *logits) {
    const int E = d.E, H = d.H, G = 3 * d.H;
    kb_row_times(G, E, p.wx, p.emb + (size_t)token * E, p.bg, s.z, s.edge);
    kb_row_times(G, E, p.wh, r, s.z, s.z, s.edge);
    kb_cell_forward(1, H, s.z, c, s.c, s.tc, s.m);
    memcpy(c, s.c, (size_t)H * sizeof(float));
    kb_row_times(E, H, p.wp, s.m, NULL, r, s.edge);
    kb_dot_rows(d.V, E, p.emb, r, p.bias, logits);
}

/* The sum of exp(logit - peak) over n logits. */
KBDFL_CLONES static float kb_exp_sum(int n, float peak, const float *restrict logits) {
    float lanes[KB_DOT_LANES] = {0}, total = 0.0f;
    const int whole = n - n % KB_DOT_LANES;
    for (int j = 0; j < whole; j += KB_DOT_LANES)
        for (int k = 0; k < KB_DOT_LANES; k++) lanes[k] += kb_exp(logits[j + k] - peak);
    for (int j = whole; j < n; j++) lanes[j - whole] += kb_exp(logits[j] - peak);
    for (int k = 0; k < KB_DOT_LANES; k++) total += lanes[k];
    return total;
}

/* The `slots` most probable words among ids from KB_FIRST_WORD on, the smaller id first where two are equal, and their
 * share of those words' probability; -1 and 0 where there is none (NaN is never suggested). */
static inline void kb_top(int V, const float *logits, int slots, int *ids, float *shares) {
    for (int k = 0; k < slots; k++) {
        ids[k] = -1;
        shares[k] = -INFINITY; /* the logit, at first */
    }
    for (int v = KB_FIRST_WORD; v < V; v++) {
        const float logit = logits[v];
        if (!(logit > shares[slots - 1])) continue;
        int k = slots - 1;
        for (; k > 0 && logit > shares[k - 1]; k--) {
            ids[k] = ids[k - 1];
            shares[k] = shares[k - 1];
        }
        ids[k] = v;
        shares[k] = logit;
    }
    const float peak = shares[0];
    const float total = ids[0] < 0 ? 1.0f : kb_exp_sum(V - KB_FIRST_WORD, peak, logits + KB_FIRST_WORD);
    for (int k = 0; k < slots; k++) shares[k] = ids[k] < 0 ? 0.0f : kb_exp(shares[k] - peak) / total;
}

#endif
