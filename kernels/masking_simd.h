/* Fixed-point numbers modulo 2^b in words of 32 bits; `mask` is 2^b - 1. */
#ifndef KBDFL_MASKING_SIMD_H
#define KBDFL_MASKING_SIMD_H

#include "_clones.h"
#include "aligned.h"
#include "float_bits.h"
#include "random_bits.h"

#define DRAWS 1024 /* values that share a block of random bits */

/* words (n,) = round(x * factor), clamped to [-levels, levels] before, up or down at random.
 *
 * In double the fraction is exact, and so is its comparison with a 31-bit number. Returns -1 for a NaN or an
 * infinity. */
KBDFL_CLONES KBDFL_EXACT static int kb_encode_fixed(int64_t n, double factor, int32_t levels, uint32_t mask,
                                                    uint64_t seed, const float *restrict x,
                                                    uint32_t *restrict words) {
    for (int64_t start = 0; start < n; start += DRAWS) {
        const int m = n - start < DRAWS ? (int)(n - start) : DRAWS;
        const uint64_t key = kb_block_key(seed, (uint64_t)(start / DRAWS));
        const uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
        if (kb_top_bits(m, x + start) >= INFINITY_BITS) return -1;
        for (int j = 0; j < m; j++) {
            double y = (double)x[start + j] * factor;
            y = y > levels ? levels : y;
            y = y < -levels ? -levels : y;
            int32_t below = (int32_t)y;
            below -= (double)below > y;
            const double draw = (int32_t)(kb_random_bits(first, second, (uint32_t)j) >> 1);
            const int32_t up = draw < (y - below) * 2147483648.0;
            words[start + j] = (uint32_t)(below + up) & mask;
        }
    }
    return 0;
}

/* out (n,) = step * words, read as numbers in [-2^(b-1), 2^(b-1)): the shift brings their sign to the top */
KBDFL_CLONES static void kb_decode_fixed(int64_t n, int bits, double step, const uint32_t *restrict words,
                                         float *restrict out) {
    const int shift = 32 - bits;
    for (int64_t j = 0; j < n; j++) out[j] = (float)((double)((int32_t)(words[j] << shift) >> shift) * step);
}

static inline void kb_add_words(int64_t n, uint32_t mask, const uint32_t *restrict other, uint32_t *restrict words) {
    for (int64_t j = 0; j < n; j++) words[j] = (words[j] + other[j]) & mask;
}

static inline void kb_subtract_words(int64_t n, uint32_t mask, const uint32_t *restrict other,
                                     uint32_t *restrict words) {
    for (int64_t j = 0; j < n; j++) words[j] = (words[j] - other[j]) & mask;
}

KBDFL_STREAM_CLONES static void kb_mask_add(int64_t n, uint32_t mask, const uint32_t *restrict other,
                                     uint32_t *restrict words) {
    const int64_t lead = kb_unaligned(n, words);
    kb_add_words(lead, mask, other, words);
    kb_add_words(n - lead, mask, other + lead, words + lead);
}

KBDFL_STREAM_CLONES static void kb_mask_subtract(int64_t n, uint32_t mask, const uint32_t *restrict other,
                                          uint32_t *restrict words) {
    const int64_t lead = kb_unaligned(n, words);
    kb_subtract_words(lead, mask, other, words);
    kb_subtract_words(n - lead, mask, other + lead, words + lead);
}

#endif
