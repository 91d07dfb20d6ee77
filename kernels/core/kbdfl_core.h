/* kbdfl on a phone: the next word and local training in C11, without Python.
 *
 * The caller owns all memory. Nothing here allocates, keeps a global, reads a clock or a file, or calls a library but
 * for memcpy, memset, log and sqrt; functions may run at once in several threads, each with scratch memory of its own.
 * The arithmetic is that of the Python kernels, compiled from the same headers. Little-endian machines only.
 *
 * Shapes: V words, E embedding, H cells, P parameters. Whatever is an array of floats is row-major float32.
 */
#ifndef KBDFL_CORE_H
#define KBDFL_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { KBDFL_SLOTS = 3, KBDFL_BOS = 2, KBDFL_EOS = 3 };

/* What functions return; kbdfl_reason says it in words. */
enum {
    KBDFL_OK,
    KBDFL_NOT_A_CHECKPOINT, /* not safetensors, or cut short */
    KBDFL_OTHER_MODEL,      /* tensors are missing, not float32, or of shapes that do not fit each other */
    KBDFL_BAD_TOKEN,        /* a token outside [0, V) */
    KBDFL_BAD_BATCHES,      /* packed batches that lead outside an array, or none */
    KBDFL_BAD_RULE,         /* a learning rate or norm that is not a number, a time budget without a clock, ... */
    KBDFL_NOT_FINITE        /* a value that cannot be quantised */
};
const char *kbdfl_reason(int error);

typedef struct { /* parameters, wherever they lie */
    int32_t vocab, embed, hidden;
    const float *emb;  /* (V,E) */
    const float *wx;   /* (E,3H) */
    const float *bg;   /* (3H,) */
    const float *wh;   /* (E,3H) */
    const float *wp;   /* (H,E) */
    const float *bias; /* (V,) */
} kbdfl_model;

/* A checkpoint's parameters, which stay where they are: map the file into memory, at a multiple of 4 bytes. Sizes are
 * checked, hashes are not: compare the file's sha256 with the one that was promised. */
int kbdfl_open(kbdfl_model *model, const void *file, size_t bytes);

/* The model whose parameters are the flat vector (P,) of kbdfl.params. */
int kbdfl_of_flat(kbdfl_model *model, int32_t vocab, int32_t embed, int32_t hidden, const float *flat);

size_t kbdfl_parameters(const kbdfl_model *model);          /* P */
void kbdfl_flatten(const kbdfl_model *model, float *flat); /* copy them to the flat vector (P,) */

typedef struct {
    int32_t ids[KBDFL_SLOTS];   /* the most probable word first; -1 where there is none */
    float shares[KBDFL_SLOTS]; /* of the probability of all words */
} kbdfl_suggestions;

size_t kbdfl_predict_bytes(const kbdfl_model *model);

/* Read one token. state_r (E,) and state_c (H,) are zeros before KBDFL_BOS and become the next state; logits (V,) are
 * those of the next word, kept by a keyboard that filters them by the letters typed since. */
int kbdfl_predict(const kbdfl_model *model, int32_t token, float *state_r, float *state_c, float *logits,
                  kbdfl_suggestions *suggestions, void *scratch);

typedef struct { /* as kbdfl.text.PackedBatches */
    const int32_t *inputs, *targets; /* (rows,) */
    const int32_t *active;           /* (instants,) */
    const int32_t *steps;            /* (batches,) */
    int64_t rows, instants, batches;
} kbdfl_batches;

/* Numbers that kbdfl_pack may write for sentences of these lengths. */
size_t kbdfl_pack_numbers(const int32_t *lengths, int32_t sentences, int32_t batch_size);

/* Pack sentences [<bos>, word, ..., <eos>], one after another in `tokens`, into batches that lie in `memory`. */
void kbdfl_pack(const int32_t *tokens, const int32_t *lengths, int32_t sentences, int32_t batch_size, int32_t *memory,
                kbdfl_batches *batches);

typedef struct { /* zeros switch off all but the rate */
    double learning_rate, clip_norm, proximal, momentum;
    double time_budget_s;    /* no batch begins later than this */
    double (*now_s)(void);   /* seconds on a clock that never goes back */
    const float *correction; /* (P,) SCAFFOLD's c - c_i, or NULL */
} kbdfl_rule;

typedef struct {
    double loss;    /* summed over the learned targets, each before its batch's step */
    int64_t tokens; /* learned targets */
    int64_t steps;  /* batches done */
} kbdfl_outcome;

/* 0 for batches that kbdfl_train and kbdfl_score refuse; scoring needs what training without momentum needs, less P
 * floats. */
size_t kbdfl_train_bytes(const kbdfl_model *model, const kbdfl_batches *batches, double momentum);

/* kbdfl.kernels.train.local_sgd: one SGD step a batch, from the flat vector `received` (P,) of a model of these
 * dimensions. delta (P,) = trained - received. */
int kbdfl_train(const kbdfl_model *model, const float *received, const kbdfl_batches *batches, const kbdfl_rule *rule,
                float *delta, kbdfl_outcome *outcome, void *scratch);

/* kbdfl.kernels.score.score: -log p of each target and how many words score above it, (rows,) each. */
int kbdfl_score(const kbdfl_model *model, const kbdfl_batches *batches, float *losses, int32_t *ranks, void *scratch);

/* kbdfl.kernels.quantize.quantize_int8: q (n,) and scales (ceil(n / block),), rounded at random without a bias. */
int kbdfl_quantize_int8(int64_t n, int32_t block, uint64_t seed, const float *x, int8_t *q, float *scales);

#ifdef __cplusplus
}
#endif

#endif
