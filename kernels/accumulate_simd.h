/* out = step * level, or acc += weight * value: the loops behind dequantising and accumulate.pyx.
 *
 * A sum is float64, and every term is rounded to a multiple of 2^-32 before it is added. Such sums are exact, hence
 * the same in any order, while the magnitudes that meet at a place stay below 2^21; beyond, they round as floats do.
 * Multiplication and addition round separately (KBDFL_EXACT). Blocks and packings are those of quantize_simd.h and
 * packed_simd.h; what is read has been checked.
 */
#ifndef KBDFL_ACCUMULATE_SIMD_H
#define KBDFL_ACCUMULATE_SIMD_H

#include "packed_simd.h"

#define KBDFL_GRID 1572864.0 /* 1.5 * 2^20: the last bit of a float64 near it is 2^-32 */

static inline double kb_on_grid(double term) { return (term + KBDFL_GRID) - KBDFL_GRID; }

/* The n levels of a block: into `out`, as q * scale, or `weight` times that onto `acc`; the other one is NULL. */
static inline void kb_use_levels(int n, double weight, float scale, const int8_t *restrict q, float *restrict out,
                                 double *restrict acc) {
    const double step = weight * (double)scale;
    if (out)
        for (int j = 0; j < n; j++) out[j] = (float)q[j] * scale;
    else
        for (int j = 0; j < n; j++) acc[j] = acc[j] + kb_on_grid((double)q[j] * step);
}

/* Whether a block leaves a sum as it is: one that a phone did not train. */
static inline int kb_idle(float scale, const double *acc) { return acc && scale == 0; }

KBDFL_CLONES KBDFL_EXACT static void kb_levels_int8(int64_t n, int block, double weight, const int8_t *restrict q,
                                                    const float *restrict scales, float *restrict out,
                                                    double *restrict acc) {
    for (int64_t start = 0, b = 0; start < n; start += block, b++)
        if (!kb_idle(scales[b], acc))
            kb_use_levels(kb_min(n - start, block), weight, scales[b], q + start, out ? out + start : out,
                          acc ? acc + start : acc);
}

KBDFL_CLONES KBDFL_EXACT static void kb_levels_4bit(int64_t n, int block, double weight,
                                                    const uint8_t *restrict packed, const float *restrict scales,
                                                    float *restrict out, double *restrict acc) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_idle(scales[b], acc) ? 0 : kb_min(n - start, block);
        for (int p = 0; p < m; p += PIECE) {
            const int64_t at = start + p;
            const int piece = kb_min(m - p, PIECE);
            kb_unpack_nibbles(piece, packed + at / 2, levels);
            kb_use_levels(piece, weight, scales[b], levels, out ? out + at : out, acc ? acc + at : acc);
        }
    }
}

KBDFL_CLONES KBDFL_EXACT static void kb_levels_2bit(int64_t n, int block, double weight,
                                                    const uint8_t *restrict packed, const float *restrict scales,
                                                    float *restrict out, double *restrict acc) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_idle(scales[b], acc) ? 0 : kb_min(n - start, block);
        for (int p = 0; p < m; p += PIECE) {
            const int64_t at = start + p;
            const int piece = kb_min(m - p, PIECE);
            kb_unpack_pairs(piece, packed + at / 4, levels);
            kb_use_levels(piece, weight, scales[b], levels, out ? out + at : out, acc ? acc + at : acc);
        }
    }
}

KBDFL_CLONES KBDFL_EXACT static void kb_levels_1bit(int64_t n, int block, double weight,
                                                    const uint8_t *restrict packed, const float *restrict scales,
                                                    float *restrict out, double *restrict acc) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_idle(scales[b], acc) ? 0 : kb_min(n - start, block);
        for (int p = 0; p < m; p += PIECE) {
            const int64_t at = start + p;
            const int piece = kb_min(m - p, PIECE);
            kb_unpack_signs(piece, packed + at / 8, levels);
            kb_use_levels(piece, weight, scales[b], levels, out ? out + at : out, acc ? acc + at : acc);
        }
    }
}

static inline void kb_add_values(int64_t n, double weight, const float *restrict x, double *restrict acc) {
    for (int64_t j = 0; j < n; j++) acc[j] = acc[j] + kb_on_grid((double)x[j] * weight);
}

KBDFL_STREAM_CLONES KBDFL_EXACT static void kb_accumulate_float32(int64_t n, double weight, const float *restrict x,
                                                                  double *restrict acc) {
    kb_add_values(n, weight, x, acc);
}

/* acc += weight * values from the first of k ascending changes up to the second, from the third up to the fourth, ...;
 * the end is n if there is an odd number of them */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_runs(int64_t n, int64_t k, double weight, const int32_t *changes,
                                                        const float *restrict values, double *restrict acc) {
    for (int64_t j = 0; j < k; j += 2) {
        const int64_t start = changes[j], length = (j + 1 < k ? changes[j + 1] : n) - start;
        kb_add_values(length, weight, values, acc + start);
        values += length;
    }
}

/* acc[indices[j]] += weight * values[j] for k distinct indices */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_sparse(int64_t k, double weight, const int32_t *restrict indices,
                                                          const float *restrict values, double *restrict acc) {
    for (int64_t j = 0; j < k; j++) {
        double *place = acc + indices[j];
        *place = *place + kb_on_grid((double)values[j] * weight);
    }
}

KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_sparse_int8(int64_t k, int block, double weight,
                                                               const int32_t *restrict indices,
                                                               const int8_t *restrict q,
                                                               const float *restrict scales, double *restrict acc) {
    for (int64_t start = 0, b = 0; start < k; start += block, b++) {
        const int64_t end = start + kb_min(k - start, block);
        const double step = weight * (double)scales[b];
        for (int64_t j = start; j < end; j++) {
            double *place = acc + indices[j];
            *place = *place + kb_on_grid((double)q[j] * step);
        }
    }
}

/* acc (V, E)[rows[r]] += weight * values (R, E)[r] for R distinct rows */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_rows(int64_t count, int64_t width, double weight,
                                                        const int32_t *restrict rows,
                                                        const float *restrict values, double *restrict acc) {
    for (int64_t r = 0; r < count; r++) kb_add_values(width, weight, values + r * width, acc + rows[r] * width);
}

#endif
