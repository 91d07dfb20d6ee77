/* The door to the kernels' headers for whoever has no Python: checks, then the same arithmetic. */
#include "kbdfl_core.h"

#include "../_local.h"
#include "../_step.h"
#include "../quantize_simd.h"

_Static_assert(sizeof(int) == 4 && sizeof(float) == 4, "indices are int32, numbers float32");

const char *kbdfl_reason(int error) {
    switch (error) {
        case KBDFL_OK: return "all is well";
        case KBDFL_NOT_A_CHECKPOINT: return "this is not a whole safetensors file";
        case KBDFL_OTHER_MODEL: return "the tensors are not those of a kbdfl model";
        case KBDFL_BAD_TOKEN: return "a token must lie in the vocabulary";
        case KBDFL_BAD_BATCHES: return "the packed batches are empty or lead outside their arrays";
        case KBDFL_BAD_RULE: return "a number of the training rule is out of its range";
        case KBDFL_NOT_FINITE: return "a value is not finite or above 2^127";
        default: return "unknown error";
    }
}

static kb_dims dims_of(const kbdfl_model *model) {
    const kb_dims d = {model->vocab, model->embed, model->hidden};
    return d;
}

/* Nothing is written through these: the kernels' parameters are not const because gradients have their shape. */
static kb_params params_of(const kbdfl_model *model) {
    const kb_params p = {(float *)model->emb, (float *)model->wx, (float *)model->bg,
                         (float *)model->wh,  (float *)model->wp, (float *)model->bias};
    return p;
}

static kb_batches batches_of(const kbdfl_batches *b) {
    const kb_batches plain = {b->inputs, b->targets, b->active, b->steps, b->rows, b->instants, b->batches};
    return plain;
}

static int sound(const kbdfl_model *model, const kbdfl_batches *b) {
    int64_t culprit;
    return b->batches > 0 && b->rows <= KB_MOST_ROWS &&
           kb_batches_fault(model->vocab, batches_of(b), &culprit) == KB_SOUND;
}

int kbdfl_of_flat(kbdfl_model *model, int32_t vocab, int32_t embed, int32_t hidden, const float *flat) {
    const kb_dims d = {vocab, embed, hidden};
    if (vocab < 1 || embed < 1 || hidden < 1 || vocab > KB_MOST_UNITS || embed > KB_MOST_UNITS ||
        hidden > KB_MOST_UNITS)
        return KBDFL_OTHER_MODEL;
    const kb_params p = kb_slice_params(d, (float *)flat);
    const kbdfl_model found = {vocab, embed, hidden, p.emb, p.wx, p.bg, p.wh, p.wp, p.bias};
    *model = found;
    return KBDFL_OK;
}

size_t kbdfl_parameters(const kbdfl_model *model) { return kb_parameter_floats(dims_of(model)); }

void kbdfl_flatten(const kbdfl_model *model, float *flat) {
    const kb_params from = params_of(model), to = kb_slice_params(dims_of(model), flat);
    const size_t V = (size_t)model->vocab, E = (size_t)model->embed, H = (size_t)model->hidden;
    memcpy(to.emb, from.emb, V * E * sizeof(float));
    memcpy(to.wx, from.wx, E * 3 * H * sizeof(float));
    memcpy(to.bg, from.bg, 3 * H * sizeof(float));
    memcpy(to.wh, from.wh, E * 3 * H * sizeof(float));
    memcpy(to.wp, from.wp, H * E * sizeof(float));
    memcpy(to.bias, from.bias, V * sizeof(float));
}

size_t kbdfl_predict_bytes(const kbdfl_model *model) {
    kb_memory counted = {NULL, 0};
    kb_take_step(dims_of(model), &counted);
    return counted.used * sizeof(float);
}

int kbdfl_predict(const kbdfl_model *model, int32_t token, float *state_r, float *state_c, float *logits,
                  kbdfl_suggestions *suggestions, void *scratch) {
    const kb_dims d = dims_of(model);
    kb_memory memory = {scratch, 0};
    if (token < 0 || token >= model->vocab) return KBDFL_BAD_TOKEN;
    kb_step(d, params_of(model), kb_take_step(d, &memory), token, state_r, state_c, logits);
    kb_top(d.V, logits, KBDFL_SLOTS, suggestions->ids, suggestions->shares);
    return KBDFL_OK;
}

/* The words of a sentence: <bos> is not learned, and <eos> is neither read nor learned. */
static int32_t words_of(int32_t length) { return length > 2 ? length - 2 : 0; }

size_t kbdfl_pack_numbers(const int32_t *lengths, int32_t sentences, int32_t batch_size) {
    size_t rows = 0;
    for (int32_t i = 0; i < sentences; i++) rows += (size_t)words_of(lengths[i]);
    /* inputs, targets and active; steps; a batch's order and where its sentences begin */
    return 3 * rows + (size_t)(sentences / batch_size + 1) + 2 * (size_t)batch_size;
}

/* Sort `count` sentences, longest first, equal ones as they came; `start` moves with them. */
static void sort_by_length(const int32_t *lengths, int32_t count, int32_t *order, int32_t *start) {
    for (int32_t i = 1; i < count; i++) {
        const int32_t sentence = order[i], begin = start[i];
        int32_t j = i;
        for (; j > 0 && lengths[order[j - 1]] < lengths[sentence]; j--) {
            order[j] = order[j - 1];
            start[j] = start[j - 1];
        }
        order[j] = sentence;
        start[j] = begin;
    }
}

void kbdfl_pack(const int32_t *tokens, const int32_t *lengths, int32_t sentences, int32_t batch_size, int32_t *memory,
                kbdfl_batches *batches) {
    size_t words = 0;
    for (int32_t i = 0; i < sentences; i++) words += (size_t)words_of(lengths[i]);
    int32_t *inputs = memory, *targets = inputs + words, *active = targets + words, *steps = active + words;
    int32_t *order = steps + sentences / batch_size + 1, *start = order + batch_size;
    int32_t at = 0, row = 0, instants = 0, count = 0;
    for (int32_t first = 0; first < sentences; first += batch_size) {
        const int32_t size = kb_least(batch_size, sentences - first);
        for (int32_t i = 0; i < size; at += lengths[first + i++]) {
            order[i] = first + i;
            start[i] = at;
        }
        sort_by_length(lengths, size, order, start);
        const int32_t longest = words_of(lengths[order[0]]);
        for (int32_t t = 0; t < longest; t++) {
            int32_t alive = 0;
            for (; alive < size && words_of(lengths[order[alive]]) > t; alive++, row++) {
                const int32_t target = tokens[start[alive] + t + 1];
                inputs[row] = tokens[start[alive] + t];
                targets[row] = target < KB_FIRST_WORD ? -1 : target;
            }
            active[instants++] = alive;
        }
        if (longest > 0) steps[count++] = longest;
    }
    const kbdfl_batches packed = {inputs, targets, active, steps, row, instants, count};
    *batches = packed;
}

size_t kbdfl_train_bytes(const kbdfl_model *model, const kbdfl_batches *batches, double momentum) {
    if (!sound(model, batches)) return 0;
    const kb_capacity most = kb_capacity_of(batches_of(batches));
    return kb_run_floats(dims_of(model), most.rows, most.sentences, momentum) * sizeof(float);
}

int kbdfl_train(const kbdfl_model *model, const float *received, const kbdfl_batches *batches, const kbdfl_rule *rule,
                float *delta, kbdfl_outcome *outcome, void *scratch) {
    if (!(rule->learning_rate > -INFINITY && rule->learning_rate < INFINITY) || !(rule->clip_norm >= 0) ||
        !(rule->proximal >= 0 && rule->proximal < INFINITY) || !(rule->momentum >= 0 && rule->momentum < 1) ||
        (rule->time_budget_s > 0 && !rule->now_s))
        return KBDFL_BAD_RULE;
    if (!sound(model, batches)) return KBDFL_BAD_BATCHES;
    const kb_rule plain = {rule->learning_rate, rule->clip_norm, rule->proximal,  rule->momentum,
                           rule->time_budget_s, rule->now_s,     rule->correction};
    const kb_outcome done = kb_local_sgd(dims_of(model), received, delta, scratch, batches_of(batches), plain);
    outcome->loss = done.loss;
    outcome->tokens = done.tokens;
    outcome->steps = done.steps;
    return KBDFL_OK;
}

int kbdfl_score(const kbdfl_model *model, const kbdfl_batches *batches, float *losses, int32_t *ranks, void *scratch) {
    if (!sound(model, batches)) return KBDFL_BAD_BATCHES;
    kb_score(dims_of(model), params_of(model), scratch, batches_of(batches), kb_least(KB_FIRST_WORD, model->vocab),
             losses, ranks);
    return KBDFL_OK;
}

int kbdfl_quantize_int8(int64_t n, int32_t block, uint64_t seed, const float *x, int8_t *q, float *scales) {
    return kb_quantize_int8(n, block, seed, x, q, scales) ? KBDFL_NOT_FINITE : KBDFL_OK;
}
