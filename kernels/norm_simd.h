/* The Euclidean norm and scaling. */
#ifndef KBDFL_NORM_SIMD_H
#define KBDFL_NORM_SIMD_H

#include <stdint.h>

#include "_clones.h"
#include "aligned.h"

#define SUM_LANES 32

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
