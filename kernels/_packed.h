/* Packed batches (kbdfl.text.PackedBatches): how large they are, and whether one may walk through them. */
#ifndef KBDFL_PACKED_H
#define KBDFL_PACKED_H

#include <stddef.h>
#include <stdint.h>

#define KB_MOST_UNITS (1 << 28)  /* of V, E and H: 3 H fits an int, and the number of parameters 64 bits */
#define KB_MOST_ROWS 0x7FFFFFFF

typedef struct { /* batches one after another */
    const int *inputs;  /* (rows,) */
    const int *targets; /* (rows,) -1 is not learned */
    const int *active;  /* (instants,) sentences alive at each time step */
    const int *steps;   /* (batches,) time steps of each batch */
    int64_t rows, instants, batches;
} kb_batches;

typedef struct { /* of the largest batch */
    size_t rows, sentences;
} kb_capacity;

/* N, the rows of one batch of T steps. */
static inline int kb_batch_rows(const int *active, int T) {
    int N = 0;
    for (int t = 0; t < T; t++) N += active[t];
    return N;
}

/* How many of N targets are learned. */
static inline int kb_count_learned(const int *targets, int N) {
    int learned = 0;
    for (int i = 0; i < N; i++) learned += targets[i] >= 0;
    return learned;
}

/* What scratch memory must hold; zeros when there is no batch. */
static inline kb_capacity kb_capacity_of(kb_batches b) {
    kb_capacity most = {0, 0};
    const int *active = b.active;
    for (int64_t k = 0; k < b.batches; active += b.steps[k++]) {
        const size_t rows = (size_t)kb_batch_rows(active, b.steps[k]), sentences = (size_t)active[0];
        most.rows = rows > most.rows ? rows : most.rows;
        most.sentences = sentences > most.sentences ? sentences : most.sentences;
    }
    return most;
}

enum { KB_SOUND, KB_BAD_INPUT, KB_BAD_TARGET, KB_BAD_STEPS, KB_BAD_ACTIVE, KB_STEPS_SUM, KB_ACTIVE_SUM };

/* KB_SOUND, or what would lead outside an array of a model of V words; `culprit` becomes the number that is wrong. */
static inline int kb_batches_fault(int V, kb_batches b, int64_t *culprit) {
    int64_t rows = 0, step = 0;
    for (int64_t i = 0; i < b.rows; i++) {
        *culprit = b.inputs[i];
        if (*culprit < 0 || *culprit >= V) return KB_BAD_INPUT;
        *culprit = b.targets[i];
        if (*culprit < -1 || *culprit >= V) return KB_BAD_TARGET;
    }
    for (int64_t k = 0; k < b.batches; k++) {
        const int64_t T = *culprit = b.steps[k];
        if (T < 1 || step + T > b.instants) return KB_BAD_STEPS;
        for (int64_t t = 0; t < T; t++) {
            *culprit = b.active[step + t];
            if (*culprit < 1 || (t > 0 && *culprit > b.active[step + t - 1])) return KB_BAD_ACTIVE;
            rows += *culprit;
        }
        step += T;
    }
    *culprit = step;
    if (step != b.instants) return KB_STEPS_SUM;
    *culprit = rows;
    return rows == b.rows ? KB_SOUND : KB_ACTIVE_SUM;
}

#endif
