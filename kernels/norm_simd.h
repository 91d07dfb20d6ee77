/* The Euclidean norm and scaling. */
#ifndef KBDFL_NORM_SIMD_H
#define KBDFL_NORM_SIMD_H

#include <stdint.h>
#include <string.h>

#include "_clones.h"
#include "aligned.h"

#define SUM_LANES 32
#define FOURS 16

/* Sum of squares in SUM_LANES partial sums of doubles: a fixed order, whatever the vector width. */
KBDFL_CLONES static double kb_squared_norm(int64_t n, const float *restrict x) {
    double lanes[SUM_LANES] = {0}, total = 0;
    const int64_t whole = n - n % SUM_LANES;
    for (int64_t j = 0; j < whole; j += SUM_LANES)
        for (int k = 0; k < SUM_LANES; k++) lanes[k] += (double)x[j + k] * (double)x[j + k];
    for (int64_t j = whole; j < n; j++) lanes[j - whole] += (double)x[j] * (double)x[j];
    for (int k = 0; k < SUM_LANES; k++) total += lanes[k];
    return total;
}

static inline float kb_square(float x) { return x * x; }

static inline void kb_add_fours(const float *restrict x, double *restrict lanes) {
    for (int k = 0; k < FOURS; k++)
        lanes[k] += (double)((kb_square(x[k]) + kb_square(x[FOURS + k])) +
                             (kb_square(x[2 * FOURS + k]) + kb_square(x[3 * FOURS + k])));
}

/* The same to within 3 * 2^-24 of itself in two thirds of the time: four squares meet in float32 first, which leaves
 * a quarter of the numbers to convert. Not for vectors whose squares leave float32. */
KBDFL_CLONES KBDFL_EXACT static double kb_squared_norm_in_fours(int64_t n, const float *restrict x) {
    double lanes[FOURS] = {0}, total = 0;
    float rest[4 * FOURS] = {0};
    const int64_t whole = n - n % (4 * FOURS);
    for (int64_t j = 0; j < whole; j += 4 * FOURS) kb_add_fours(x + j, lanes);
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof(float));
    kb_add_fours(rest, lanes);
    for (int k = 0; k < FOURS; k++) total += lanes[k];
    return total;
}

static inline void kb_multiply(int64_t n, float factor, const float *x, float *out) {
    for (int64_t j = 0; j < n; j++) out[j] = x[j] * factor;
}

/* x *= factor */
KBDFL_STREAM_CLONES static void kb_scale(int64_t n, float factor, float *restrict x) {
    const int64_t lead = kb_unaligned(n, x);
    kb_multiply(lead, factor, x, x);
    kb_multiply(n - lead, factor, x + lead, x + lead);
}

/* out = x * factor */
KBDFL_STREAM_CLONES static void kb_scale_into(int64_t n, float factor, const float *restrict x, float *restrict out) {
    const int64_t lead = kb_unaligned(n, out);
    kb_multiply(lead, factor, x, out);
    kb_multiply(n - lead, factor, x + lead, out + lead);
}

#endif
