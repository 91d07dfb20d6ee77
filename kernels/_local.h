/* A client's whole local run over packed batches, and the scratch memory it needs.
 *
 * Mini-batch SGD with the gradient's global norm clipped (Pascanu et al. 2013, arXiv 1211.5063). train.pyx gives it to
 * Python, core/ to everything else.
 */
#ifndef KBDFL_LOCAL_H
#define KBDFL_LOCAL_H

#include "_head.h"
#include "_packed.h"
#include "norm_simd.h"

#define KB_LINE_BYTES 64 /* of a cache line */

typedef struct { /* of one batch: the activations, a tile of the head, and one stretch that holds the packed weights
                  * while the recurrence runs and the tile's logits while the head does */
    kb_activations body;
    kb_head head;
} kb_scratch;

typedef struct {
    double rate;
    double clip;     /* 0 = none */
    double proximal; /* FedProx's mu */
    double momentum;
    double budget_s;         /* 0 = none: no batch begins later than this */
    double (*now_s)(void);   /* a clock that never goes back; not called without a budget */
    const float *correction; /* (P,) or NULL */
} kb_rule;

typedef struct {
    double loss;    /* summed over the learned targets of the steps done */
    int64_t tokens; /* learned targets of the steps done */
    int64_t steps;
} kb_outcome;

static inline kb_scratch kb_lay_scratch(kb_dims d, kb_memory *memory, size_t N, size_t B) {
    kb_scratch s;
    s.body = kb_take_activations(d, memory, N, B);
    s.head = kb_take_head(d, memory);
    s.body.packed = s.head.logits = kb_take(memory, kb_larger(kb_cifg_packed_floats(d, N), kb_logit_floats(d)));
    return s;
}

/* For N rows and B sentences, from the first cache line that begins in `memory`. */
static inline kb_scratch kb_slice_scratch(kb_dims d, float *memory, size_t N, size_t B) {
    kb_memory rest = {memory + (KB_LINE_BYTES - (uintptr_t)memory % KB_LINE_BYTES) % KB_LINE_BYTES / sizeof(float), 0};
    return kb_lay_scratch(d, &rest, N, B);
}

/* How many floats `kb_slice_scratch` needs, wherever the memory begins. */
static inline size_t kb_scratch_floats(kb_dims d, size_t N, size_t B) {
    kb_memory counted = {NULL, 0};
    kb_lay_scratch(d, &counted, N, B);
    return counted.used + KB_LINE_BYTES / sizeof(float);
}

/* What `kb_local_sgd` needs: the gradient, its velocity if there is momentum, and what a batch needs. */
static inline size_t kb_run_floats(kb_dims d, size_t N, size_t B, double momentum) {
    return kb_parameter_floats(d) * (momentum > 0 ? 2 : 1) + kb_scratch_floats(d, N, B);
}

/* The gradient of the mean loss of a batch of T steps and N rows into g; returns the summed loss. */
static double kb_batch_gradient(kb_dims d, kb_params p, kb_params g, kb_scratch s, const int *inputs,
                                const int *targets, const int *active, int T, int N, int learned) {
    kb_cifg_forward(d, p, s.body, inputs, active, T, N);
    const double loss = kb_head_forward_backward(d, p, g, s.head, s.body.r, s.body.dr, targets, N, learned);
    kb_cifg_backward(d, p, g, s.body, inputs, active, T, N);
    return loss;
}

/* Train from `received` (P,), one step a batch that has a learned target; delta (P,) = trained - received. The batches
 * are sound (kb_batches_fault) and there is at least one; `memory` holds kb_run_floats. */
static kb_outcome kb_local_sgd(kb_dims d, const float *received, float *delta, float *memory, kb_batches b,
                               kb_rule rule) {
    const size_t P = kb_parameter_floats(d);
    const kb_capacity most = kb_capacity_of(b);
    float *gradient = memory, *velocity = rule.momentum > 0 ? memory + P : NULL;
    const kb_scratch s = kb_slice_scratch(d, memory + (velocity ? 2 * P : P), most.rows, most.sentences);
    const kb_params p = kb_slice_params(d, delta), g = kb_slice_params(d, gradient);
    const int bent = rule.proximal > 0 || rule.correction || velocity;
    const double started = rule.budget_s > 0 ? rule.now_s() : 0.0;
    kb_outcome outcome = {0.0, 0, 0};
    memcpy(delta, received, P * sizeof(float));
    if (velocity) memset(velocity, 0, P * sizeof(float));
    for (int64_t k = 0; k < b.batches; k++) {
        if (rule.budget_s > 0 && rule.now_s() - started > rule.budget_s) break;
        const int T = b.steps[k], N = kb_batch_rows(b.active, T), learned = kb_count_learned(b.targets, N);
        if (learned > 0) {
            outcome.loss += kb_batch_gradient(d, p, g, s, b.inputs, b.targets, b.active, T, N, learned);
            double share = 1.0;
            if (rule.clip > 0) {
                const double norm = sqrt(kb_squared_norm((int64_t)P, gradient));
                if (norm > rule.clip) share = rule.clip / norm;
            }
            if (bent)
                kb_descend_bent((int64_t)P, (float)rule.rate, (float)share, (float)rule.proximal, (float)rule.momentum,
                                gradient, received, rule.correction, velocity, delta);
            else
                kb_descend((int64_t)P, (float)(rule.rate * share), gradient, delta);
        }
        outcome.tokens += learned;
        outcome.steps += 1;
        b.inputs += N;
        b.targets += N;
        b.active += T;
    }
    kb_subtract((int64_t)P, delta, received, delta);
    return outcome;
}

/* Losses and ranks (rows,) of sound batches, at least one; `memory` holds kb_scratch_floats. */
static void kb_score(kb_dims d, kb_params p, float *memory, kb_batches b, int first_word, float *losses, int *ranks) {
    const kb_capacity most = kb_capacity_of(b);
    const kb_scratch s = kb_slice_scratch(d, memory, most.rows, most.sentences);
    for (int64_t k = 0; k < b.batches; k++) {
        const int T = b.steps[k], N = kb_batch_rows(b.active, T);
        kb_cifg_forward(d, p, s.body, b.inputs, b.active, T, N);
        kb_head_score(d, p, s.head, s.body.r, b.targets, N, first_word, losses, ranks);
        b.inputs += N;
        b.targets += N;
        b.active += T;
        losses += N;
        ranks += N;
    }
}

#endif
