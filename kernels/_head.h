/* The output softmax over the tied embedding, for training and for scoring: logits = r emb^T + bias, never all of
 * them at once. A tile of up to KB_PANEL rows runs in vector lanes, the words in blocks, so that the elementwise work
 * meets a block while it is in the cache. Shapes as in _cifg.h; R rows of a tile, a multiple of KB_ALIGN.
 */
#ifndef KBDFL_HEAD_H
#define KBDFL_HEAD_H

#include <math.h>

#include "_cifg.h"

#define KB_WORDS 48 /* of a block: long enough for the products over words, and its logits fit the nearest cache */

typedef struct {   /* of one tile */
    float *logits; /* (V,R)  word by word, then exponentials, then their gradient */
    float *peaks;  /* (blocks,R) of the logits up to each block */
    float *r;      /* (R,E)  the tile's outputs, rows at a multiple of KB_ALIGN floats */
    float *lanes;  /* (E,R)  the same with rows in lanes */
    float *dr;     /* (E,R)  their gradient */
    float *peak;   /* (R,) */
    float *total;  /* (R,)   sum of exp(logit - peak) */
    float *own;    /* (R,)   the target's logit */
    float *scale;  /* (R,) */
    float *factor; /* (R,) */
    int *row;      /* (R,)   where each came from */
    int *target;   /* (R,) */
    int *above;    /* (R,)   words that score above the target */
} kb_head;

static inline int kb_padded(int E) { return (E + KB_ALIGN - 1) / KB_ALIGN * KB_ALIGN; }
static inline int kb_word_blocks(kb_dims d) { return (d.V + KB_WORDS - 1) / KB_WORDS; }
static inline size_t kb_logit_floats(kb_dims d) { return (size_t)d.V * KB_PANEL; }

/* Without `logits`, which its owner lays over other memory. */
static inline kb_head kb_take_head(kb_dims d, kb_memory *memory) {
    const size_t R = KB_PANEL, E = (size_t)d.E;
    kb_head s;
    s.logits = NULL;
    s.peaks = kb_take(memory, (size_t)kb_word_blocks(d) * R);
    s.r = kb_take(memory, R * (size_t)kb_padded(d.E));
    s.lanes = kb_take(memory, E * R);
    s.dr = kb_take(memory, E * R);
    s.peak = kb_take(memory, R);
    s.total = kb_take(memory, R);
    s.own = kb_take(memory, R);
    s.scale = kb_take(memory, R);
    s.factor = kb_take(memory, R);
    s.row = (int *)kb_take(memory, R);
    s.target = (int *)kb_take(memory, R);
    s.above = (int *)kb_take(memory, R);
    return s;
}

/* R for tiles that share `rows` evenly: a last tile of a few rows would cost as much as a whole vector. */
static inline int kb_tile_rows(int rows) {
    const int vectors = ((rows > 1 ? rows : 1) + KB_ALIGN - 1) / KB_ALIGN, most = KB_PANEL / KB_ALIGN;
    const int tiles = (vectors + most - 1) / most;
    return KB_ALIGN * ((vectors + tiles - 1) / tiles);
}

/* Bring the rows of the block at `start` of an array (V,width) nearer while the block before is worked on: the arrays
 * are too large for the second cache, and products at this rate would wait for them. */
static inline void kb_fetch(kb_dims d, const float *array, int width, int start) {
    kb_prefetch(array + (size_t)start * width, (int64_t)kb_least(KB_WORDS, d.V - start) * width);
}

/* Gather the next at most R rows that have a target, from row at[0] on; returns how many. */
static inline int kb_next_tile(kb_dims d, kb_head s, const float *r, const int *targets, int N, int *at, int R) {
    const int E = d.E;
    const size_t stride = (size_t)kb_padded(E);
    int rows = 0;
    for (; at[0] < N && rows < R; at[0]++) {
        if (targets[at[0]] < 0) continue;
        s.row[rows] = at[0];
        s.target[rows] = targets[at[0]];
        memcpy(s.r + rows * stride, r + (size_t)at[0] * E, (size_t)E * sizeof(float));
        rows++;
    }
    for (int i = rows; i < R; i++) {
        memset(s.r + i * stride, 0, (size_t)E * sizeof(float));
        s.target[i] = -1;
        s.own[i] = s.scale[i] = 0.0f;
    }
    return rows;
}

/* Logits of the tile, s.peak and s.own; as exponentials, these, s.peaks and s.total. */
static inline void kb_tile_logits(kb_dims d, kb_params p, kb_head s, int R, int rows, int exponentials) {
    const int E = d.E;
    float *before = s.factor;
    for (int j = 0; j < E; j++) /* r with rows in lanes */
        for (int i = 0; i < R; i++) s.lanes[(size_t)j * R + i] = s.r[(size_t)i * kb_padded(E) + j];
    for (int i = 0; i < R; i++) {
        s.peak[i] = -INFINITY;
        s.total[i] = 0.0f;
    }
    for (int start = 0, block = 0; start < d.V; start += KB_WORDS, block++) {
        const int words = kb_least(KB_WORDS, d.V - start);
        float *x = s.logits + (size_t)start * R;
        kb_fetch(d, p.emb, E, start + words);
        kb_gemm(R, words, E, s.lanes, R, 0, p.emb + (size_t)start * E, 1, E, NULL, 0, x, R);
        memcpy(before, s.peak, (size_t)R * sizeof(float));
        kb_add_bias(words, R, x, p.bias + start, s.peak);
        for (int i = 0; i < rows; i++)
            if (start <= s.target[i] && s.target[i] < start + words)
                s.own[i] = x[(size_t)(s.target[i] - start) * R + i];
        if (exponentials) {
            kb_exp_block(words, R, x, before, s.peak, s.total);
            memcpy(s.peaks + (size_t)block * R, s.peak, (size_t)R * sizeof(float));
        }
    }
}

/* Cross-entropy over all V words; the loss is the sum over the `learned` rows, those with a target.
 *
 * r (N,E). Writes d(mean loss)/dr to dr (N,E) and begins the gradient: g.emb and g.bias are set (not added to). */
static double kb_head_forward_backward(kb_dims d, kb_params p, kb_params g, kb_head s, const float *r, float *dr,
                                       const int *targets, int N, int learned) {
    const int E = d.E, R = kb_tile_rows(learned);
    const float share = learned > 0 ? (float)(1.0 / learned) : 0.0f;
    double loss = 0.0;
    int at = 0, rows;
    memset(dr, 0, (size_t)N * E * sizeof(float));
    memset(g.bias, 0, (size_t)d.V * sizeof(float));
    if (learned == 0) memset(g.emb, 0, (size_t)d.V * E * sizeof(float));
    for (int first = 1; (rows = kb_next_tile(d, s, r, targets, N, &at, R)) > 0; first = 0) {
        kb_tile_logits(d, p, s, R, rows, 1);
        for (int i = 0; i < rows; i++) {
            loss += log(s.total[i]) - (s.own[i] - s.peak[i]);
            s.scale[i] = share / s.total[i];
        }
        memset(s.dr, 0, (size_t)E * R * sizeof(float));
        for (int start = 0, block = 0; start < d.V; start += KB_WORDS, block++) {
            const int words = kb_least(KB_WORDS, d.V - start);
            float *x = s.logits + (size_t)start * R, *into = g.emb + (size_t)start * E;
            const float *emb = p.emb + (size_t)start * E;
            kb_scale_block(words, R, x, s.peaks + (size_t)block * R, s.peak, s.scale, s.factor, g.bias + start);
            for (int i = 0; i < rows; i++)
                if (start <= s.target[i] && s.target[i] < start + words) {
                    x[(size_t)(s.target[i] - start) * R + i] -= share;
                    g.bias[s.target[i]] -= share;
                }
            kb_fetch(d, s.logits, R, start + words);
            kb_fetch(d, p.emb, E, start + words);
            kb_gemm(R, E, words, x, R, 0, emb, E, 1, s.dr, R, s.dr, R);
            kb_fetch(d, g.emb, E, start + words);
            kb_gemm(E, words, rows, s.r, kb_padded(E), KB_PANEL, x, 1, R, first ? NULL : into, E, into, E);
        }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < E; j++) dr[(size_t)s.row[i] * E + j] = s.dr[(size_t)j * R + i];
    }
    return loss;
}

/* Per row: -log p(target) and how many suggestible words score above it; target -1 gives 0 and -1. */
static void kb_head_score(kb_dims d, kb_params p, kb_head s, const float *r, const int *targets, int N, int first_word,
                          float *losses, int *ranks) {
    int at = 0, learned = 0, rows;
    for (int i = 0; i < N; i++) {
        losses[i] = 0.0f;
        ranks[i] = -1;
        learned += targets[i] >= 0;
    }
    const int R = kb_tile_rows(learned);
    while ((rows = kb_next_tile(d, s, r, targets, N, &at, R)) > 0) {
        kb_tile_logits(d, p, s, R, rows, 0);
        memset(s.above, 0, (size_t)R * sizeof(int));
        for (int start = 0; start < d.V; start += KB_WORDS) {
            const int words = kb_least(KB_WORDS, d.V - start);
            float *x = s.logits + (size_t)start * R;
            kb_rank_block(start, words, R, x, s.own, s.target, first_word, s.above);
            kb_exp_block(words, R, x, s.peak, s.peak, s.total);
        }
        for (int i = 0; i < rows; i++) {
            losses[s.row[i]] = (float)(log(s.total[i]) - (s.own[i] - s.peak[i]));
            ranks[s.row[i]] = s.above[i];
        }
    }
}

#endif
