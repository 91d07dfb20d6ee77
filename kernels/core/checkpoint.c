/* Where a checkpoint's tensors lie: safetensors is a length (8 bytes), a JSON object of that length, and raw numbers.
 *
 *     {"__metadata__": {...}, "emb": {"dtype": "F32", "shape": [V, E], "data_offsets": [begin, end]}, ...}
 */
#include <string.h>

#include "../_packed.h"
#include "kbdfl_core.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoints are little-endian"
#endif

typedef struct {
    const char *at, *end;
    int failed; /* for good: nothing is read after a failure */
} reader;

typedef struct {
    const char *text;
    size_t length;
} slice;

typedef struct {
    int is_float32, axes;
    uint64_t shape[2], begin, end;
} entry;

static int next_is(reader *json, char wanted) {
    while (json->at < json->end && memchr(" \t\r\n", *json->at, 4)) json->at++;
    if (json->failed || json->at == json->end || *json->at != wanted) return 0;
    json->at++;
    return 1;
}

static void expect(reader *json, char wanted) {
    if (!next_is(json, wanted)) json->failed = 1;
}

/* A string as it is written, escapes and all: the names looked for have none. */
static slice string(reader *json) {
    expect(json, '"');
    slice found = {json->at, 0};
    while (!json->failed && json->at < json->end && *json->at != '"') json->at += *json->at == '\\' ? 2 : 1;
    if (json->failed || json->at >= json->end) {
        json->failed = 1;
        return found;
    }
    found.length = (size_t)(json->at++ - found.text);
    return found;
}

static int says(slice found, const char *name) {
    return found.length == strlen(name) && memcmp(found.text, name, found.length) == 0;
}

/* A value of any kind. Braces and brackets count alike, since what they hold is not looked at. */
static void skip(reader *json) {
    int64_t depth = 0;
    do {
        if (next_is(json, '{') || next_is(json, '[')) {
            depth++;
        } else if (depth > 0 && (next_is(json, '}') || next_is(json, ']'))) {
            depth--;
        } else if (json->at < json->end && *json->at == '"') {
            string(json);
        } else if (depth > 0 && (next_is(json, ',') || next_is(json, ':'))) {
            continue;
        } else {
            const char *began = json->at;
            while (json->at < json->end && !memchr(" \t\r\n,:{}[]\"", *json->at, 11)) json->at++;
            if (json->at == began) json->failed = 1;
        }
    } while (depth > 0 && !json->failed);
}

static uint64_t whole_number(reader *json) {
    uint64_t number = 0;
    next_is(json, ' ');
    if (json->failed || json->at == json->end || *json->at < '0' || *json->at > '9') json->failed = 1;
    while (!json->failed && json->at < json->end && *json->at >= '0' && *json->at <= '9') {
        if (number > UINT64_MAX / 16) json->failed = 1;
        number = 10 * number + (uint64_t)(*json->at++ - '0');
    }
    return number;
}

/* [a] or [a, b]; returns how many. Any other list fails. */
static int numbers(reader *json, uint64_t found[2]) {
    expect(json, '[');
    found[0] = whole_number(json);
    if (next_is(json, ']')) return 1;
    expect(json, ',');
    found[1] = whole_number(json);
    expect(json, ']');
    return 2;
}

static entry tensor(reader *json) {
    entry found = {0, 0, {0, 0}, 0, 0};
    expect(json, '{');
    do {
        const slice key = string(json);
        uint64_t ends[2] = {0, 0};
        expect(json, ':');
        if (says(key, "dtype")) {
            found.is_float32 = says(string(json), "F32");
        } else if (says(key, "shape")) {
            found.axes = numbers(json, found.shape);
        } else if (says(key, "data_offsets")) {
            if (numbers(json, ends) != 2) json->failed = 1;
            found.begin = ends[0];
            found.end = ends[1];
        } else {
            skip(json);
        }
    } while (next_is(json, ','));
    expect(json, '}');
    return found;
}

/* The numbers of a tensor of shape (rows,columns), columns 0 for one axis; NULL if that is not what it is. */
static const float *place(const entry *e, const char *data, uint64_t bytes, uint64_t rows, uint64_t columns) {
    const uint64_t count = rows * (columns ? columns : 1);
    if (!e->is_float32 || e->axes != (columns ? 2 : 1) || e->shape[0] != rows || (columns && e->shape[1] != columns))
        return NULL;
    if (e->begin > e->end || e->end > bytes || e->end - e->begin != 4 * count || e->begin % 4) return NULL;
    return (const float *)(const void *)(data + e->begin);
}

int kbdfl_open(kbdfl_model *model, const void *file, size_t bytes) {
    static const char *const names[] = {"emb", "wx", "bg", "wh", "wp", "bias"};
    enum { EMB, WX, BG, WH, WP, BIAS, TENSORS };
    entry found[TENSORS];
    uint64_t length;
    memset(found, 0, sizeof found);
    if (bytes < 8) return KBDFL_NOT_A_CHECKPOINT;
    memcpy(&length, file, 8);
    if (length > bytes - 8 || length % 4 || (uintptr_t)file % 4) return KBDFL_NOT_A_CHECKPOINT;
    const char *data = (const char *)file + 8 + length;
    const uint64_t rest = bytes - 8 - length;
    reader json = {(const char *)file + 8, data, 0};
    expect(&json, '{');
    do {
        const slice key = string(&json);
        int known = 0;
        expect(&json, ':');
        while (known < TENSORS && !says(key, names[known])) known++;
        if (known < TENSORS)
            found[known] = tensor(&json);
        else
            skip(&json);
    } while (next_is(&json, ','));
    expect(&json, '}');
    if (json.failed) return KBDFL_NOT_A_CHECKPOINT;
    const uint64_t V = found[EMB].shape[0], E = found[EMB].shape[1], H = found[WP].shape[0];
    if (V < 1 || E < 1 || H < 1 || V > KB_MOST_UNITS || E > KB_MOST_UNITS || H > KB_MOST_UNITS)
        return KBDFL_OTHER_MODEL;
    model->vocab = (int32_t)V;
    model->embed = (int32_t)E;
    model->hidden = (int32_t)H;
    model->emb = place(&found[EMB], data, rest, V, E);
    model->wx = place(&found[WX], data, rest, E, 3 * H);
    model->bg = place(&found[BG], data, rest, 3 * H, 0);
    model->wh = place(&found[WH], data, rest, E, 3 * H);
    model->wp = place(&found[WP], data, rest, H, E);
    model->bias = place(&found[BIAS], data, rest, V, 0);
    if (!model->emb || !model->wx || !model->bg || !model->wh || !model->wp || !model->bias) return KBDFL_OTHER_MODEL;
    return KBDFL_OK;
}
