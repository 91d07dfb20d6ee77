/* What a keyboard does with the core: suggest words, then learn from what was typed.
 *
 *     example CHECKPOINT DELTA ID... [, ID...]
 *
 * CHECKPOINT is a file of a run's checkpoints/, an ID a word's number in tokenizer.json, and a comma ends a sentence.
 * Prints the suggestions after each sentence, takes one step of SGD (rate 1, norm at most 1) on all of them, prints the
 * loss before and after, and writes what changed, float32 (P,), to DELTA.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kbdfl_core.h"

static _Noreturn void fail(const char *what, const char *why) {
    fprintf(stderr, "example: %s: %s\n", what, why);
    exit(2);
}

static void check(int error, const char *what) {
    if (error) fail(what, kbdfl_reason(error));
}

static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory) fail("memory", strerror(ENOMEM));
    return memory;
}

/* The parameters stay in the file: the system reads the pages that are used, and may drop them again. */
static kbdfl_model map_checkpoint(const char *path) {
    struct stat about;
    kbdfl_model model;
    const int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &about)) fail(path, strerror(errno));
    void *content = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (content == MAP_FAILED) fail(path, strerror(errno));
    close(file);
    check(kbdfl_open(&model, content, (size_t)about.st_size), path);
    return model;
}

typedef struct {
    int32_t *tokens, *lengths; /* one sentence after another: <bos>, words, <eos> */
    int32_t count;
} sentences;

static sentences read_sentences(char **words, int count) {
    sentences s = {allocate((size_t)(3 * count + 2) * sizeof(int32_t)), allocate((size_t)count * sizeof(int32_t)), 0};
    int32_t at = 0, began = 0;
    for (int i = 0; i <= count; i++) {
        const int ends = i == count || strcmp(words[i], ",") == 0;
        if (at == began) s.tokens[at++] = KBDFL_BOS;
        if (ends) {
            s.tokens[at++] = KBDFL_EOS;
            s.lengths[s.count++] = at - began;
            began = at;
            continue;
        }
        char *rest;
        const long id = strtol(words[i], &rest, 10);
        if (*rest || rest == words[i] || id < 0 || id > INT32_MAX) fail(words[i], "not a word's number");
        s.tokens[at++] = (int32_t)id;
    }
    return s;
}

static void suggest(const kbdfl_model *model, const sentences *s) {
    float *state_r = allocate((size_t)model->embed * sizeof(float));
    float *state_c = allocate((size_t)model->hidden * sizeof(float));
    float *logits = allocate((size_t)model->vocab * sizeof(float));
    void *scratch = allocate(kbdfl_predict_bytes(model));
    kbdfl_suggestions next;
    for (int32_t i = 0, at = 0; i < s->count; at += s->lengths[i++]) {
        memset(state_r, 0, (size_t)model->embed * sizeof(float));
        memset(state_c, 0, (size_t)model->hidden * sizeof(float));
        for (int32_t j = 0; j < s->lengths[i] - 1; j++) /* all but <eos> */
            check(kbdfl_predict(model, s->tokens[at + j], state_r, state_c, logits, &next, scratch), "suggestions");
        printf("next");
        for (int k = 0; k < KBDFL_SLOTS; k++) printf(" %d (%.4f)", (int)next.ids[k], (double)next.shares[k]);
        printf("\n");
    }
    free(state_r);
    free(state_c);
    free(logits);
    free(scratch);
}

static double mean_loss(const kbdfl_model *model, const kbdfl_batches *batches, void *scratch) {
    float *losses = allocate((size_t)batches->rows * sizeof(float));
    int32_t *ranks = allocate((size_t)batches->rows * sizeof(int32_t)), words = 0;
    double total = 0;
    check(kbdfl_score(model, batches, losses, ranks, scratch), "score");
    for (int64_t i = 0; i < batches->rows; i++) {
        total += (double)losses[i];
        words += ranks[i] >= 0;
    }
    free(losses);
    free(ranks);
    return words ? total / words : 0;
}

/* One step on all sentences; delta (P,). */
static void learn(const kbdfl_model *model, const sentences *s, float *delta) {
    const size_t size = kbdfl_parameters(model);
    const kbdfl_rule rule = {.learning_rate = 1.0, .clip_norm = 1.0};
    int32_t *numbers = allocate(kbdfl_pack_numbers(s->lengths, s->count, s->count) * sizeof(int32_t));
    float *params = allocate(size * sizeof(float));
    kbdfl_batches batches;
    kbdfl_outcome outcome;
    kbdfl_model flat;
    kbdfl_pack(s->tokens, s->lengths, s->count, s->count, numbers, &batches);
    const size_t bytes = kbdfl_train_bytes(model, &batches, rule.momentum);
    if (!bytes) fail("words", kbdfl_reason(KBDFL_BAD_BATCHES));
    void *scratch = allocate(bytes);
    kbdfl_flatten(model, params);
    check(kbdfl_train(model, params, &batches, &rule, delta, &outcome, scratch), "training");
    printf("loss %.6f", outcome.tokens ? outcome.loss / (double)outcome.tokens : 0);
    for (size_t i = 0; i < size; i++) params[i] += delta[i];
    check(kbdfl_of_flat(&flat, model->vocab, model->embed, model->hidden, params), "training");
    printf(" -> %.6f on %lld words\n", mean_loss(&flat, &batches, scratch), (long long)outcome.tokens);
    free(numbers);
    free(params);
    free(scratch);
}

int main(int count, char **words) {
    struct rusage usage;
    if (count < 4) fail("usage", "example CHECKPOINT DELTA ID... [, ID...]");
    const kbdfl_model model = map_checkpoint(words[1]);
    const sentences typed = read_sentences(words + 3, count - 3);
    const size_t size = kbdfl_parameters(&model);
    float *delta = allocate(size * sizeof(float));
    suggest(&model, &typed);
    learn(&model, &typed, delta);
    FILE *out = fopen(words[2], "wb");
    if (!out || fwrite(delta, sizeof(float), size, out) != size || fclose(out)) fail(words[2], strerror(errno));
    getrusage(RUSAGE_SELF, &usage);
    printf("%zu parameters, at most %ld kB in memory\n", size, usage.ru_maxrss);
    return 0;
}
