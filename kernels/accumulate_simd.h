/* out = or += step * level, a pass over memory each: the loops behind dequantising and accumulate.pyx.
 *
 * Multiplication and addition round separately (KBDFL_EXACT). A block's step is float32(weight * scale). Blocks and
 * packings are those of quantize_simd.h and packed_simd.h; what is read has been checked.
 */
#ifndef KBDFL_ACCUMULATE_SIMD_H
#define KBDFL_ACCUMULATE_SIMD_H

#include "aligned.h"
#include "packed_simd.h"

static inline float kb_step(double weight, float scale) { return (float)(weight * (double)scale); }

/* acc (n,) (+)= q * step */
static inline void kb_add_levels(int n, int add, float step, const int8_t *restrict q, float *restrict acc) {
    if (add)
        for (int j = 0; j < n; j++) acc[j] = acc[j] + (float)q[j] * step;
    else
        for (int j = 0; j < n; j++) acc[j] = (float)q[j] * step;
}

KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_int8(int64_t n, int block, int add, double weight,
                                                        const int8_t *restrict q, const float *restrict scales,
                                                        float *restrict acc) {
    for (int64_t start = 0, b = 0; start < n; start += block, b++)
        kb_add_levels(kb_min(n - start, block), add, kb_step(weight, scales[b]), q + start, acc + start);
}

KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_4bit(int64_t n, int block, int add, double weight,
                                                        const uint8_t *restrict packed,
                                                        const float *restrict scales, float *restrict acc) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        const float step = kb_step(weight, scales[b]);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            kb_unpack_nibbles(piece, packed + (start + p) / 2, levels);
            kb_add_levels(piece, add, step, levels, acc + start + p);
        }
    }
}

KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_2bit(int64_t n, int block, int add, double weight,
                                                        const uint8_t *restrict packed,
                                                        const float *restrict scales, float *restrict acc) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        const float step = kb_step(weight, scales[b]);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            kb_unpack_pairs(piece, packed + (start + p) / 4, levels);
            kb_add_levels(piece, add, step, levels, acc + start + p);
        }
    }
}

KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_1bit(int64_t n, int block, int add, double weight,
                                                        const uint8_t *restrict packed,
                                                        const float *restrict scales, float *restrict acc) {
    int8_t signs[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        const float step = kb_step(weight, scales[b]);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            kb_unpack_signs(piece, packed + (start + p) / 8, signs);
            kb_add_levels(piece, add, step, signs, acc + start + p);
        }
    }
}

static inline void kb_add_values(int64_t n, float weight, const float *restrict x, float *restrict acc) {
    for (int64_t j = 0; j < n; j++) acc[j] = acc[j] + x[j] * weight;
}

KBDFL_STREAM_CLONES KBDFL_EXACT static void kb_accumulate_float32(int64_t n, float weight, const float *restrict x,
                                                           float *restrict acc) {
    const int64_t lead = kb_unaligned(n, acc);
    kb_add_values(lead, weight, x, acc);
    kb_add_values(n - lead, weight, x + lead, acc + lead);
}

/* acc += weight * values from the first of k ascending changes up to the second, from the third up to the fourth, ...;
 * the end is n if there is an odd number of them */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_runs(int64_t n, int64_t k, float weight, const int32_t *changes,
                                                        const float *restrict values, float *restrict acc) {
    for (int64_t j = 0; j < k; j += 2) {
        const int64_t start = changes[j], length = (j + 1 < k ? changes[j + 1] : n) - start;
        float *restrict run = acc + start;
        for (int64_t i = 0; i < length; i++) run[i] = run[i] + values[i] * weight;
        values += length;
    }
}

/* acc[indices[j]] += weight * values[j] for k distinct indices */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_sparse(int64_t k, float weight, const int32_t *restrict indices,
                                                          const float *restrict values, float *restrict acc) {
    for (int64_t j = 0; j < k; j++) acc[indices[j]] = acc[indices[j]] + values[j] * weight;
}

KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_sparse_int8(int64_t k, int block, double weight,
                                                               const int32_t *restrict indices,
                                                               const int8_t *restrict q,
                                                               const float *restrict scales, float *restrict acc) {
    for (int64_t start = 0, b = 0; start < k; start += block, b++) {
        const int m = kb_min(k - start, block);
        const float step = kb_step(weight, scales[b]);
        for (int64_t j = start; j < start + m; j++) acc[indices[j]] = acc[indices[j]] + (float)q[j] * step;
    }
}

/* acc (V, E)[rows[r]] += weight * values (R, E)[r] for R distinct rows */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_rows(int64_t count, int64_t width, float weight,
                                                        const int32_t *restrict rows,
                                                        const float *restrict values, float *restrict acc) {
    for (int64_t r = 0; r < count; r++) kb_add_values(width, weight, values + r * width, acc + rows[r] * width);
}

#endif
