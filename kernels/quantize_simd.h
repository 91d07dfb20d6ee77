/* The loops behind quantize.pyx, written so that GCC vectorises them at -O3.
 *
 * Quantising is one multiplication in floating point and whole numbers from there on, so that every processor
 * and the numpy twin give the same bytes. With s the scale of a block, x / s lies in [-127, 127]; in units of
 * 2^-24 it fits an int32. Adding a uniform 24-bit number and shifting 24 bits to the right rounds up with
 * exactly the probability of the fraction, and the largest sum there can be is 127 * 2^24 + 2^24 - 1 = 2^31 - 1.
 *
 * n elements in blocks of `block` (the last may be shorter); scales (ceil(n / block),) float32. The functions
 * that quantise return 0, or -1 at the first block with a NaN, an infinity or a magnitude above 2^127 in it.
 */
#ifndef KBDFL_QUANTIZE_SIMD_H
#define KBDFL_QUANTIZE_SIMD_H

#include <math.h>

#include "float_bits.h"
#include "packed_simd.h"
#include "random_bits.h"

#define ONE_STEP 16777216.0f                   /* 2^24: one quantisation step in fixed point */
#define LARGEST_BITS 0x7F000000                /* of 2^127: above it 127 * scale might round to infinity */
#define SIGN_LANES 16
#define SMALLEST_BLOCK 1.2621774483536189e-29f /* 2^-96: below it 2^24 / scale would leave float32 */

/* The scale at which max |x| is `last` steps: 0 for a block that vanishes, -1 for one that must be refused. */
static inline float kb_block_scale(int m, int last, const float *restrict x) {
    const int32_t top = kb_top_bits(m, x);
    if (top > LARGEST_BITS) return -1.0f;
    float largest;
    memcpy(&largest, &top, 4);
    return largest < SMALLEST_BLOCK ? 0.0f : largest / (float)last;
}

/* q (n,) = x * factor / 2^24, rounded up or down at random; in [-last, last]. Element 0 has place `place`. */
static inline void kb_round_levels(int n, int place, int last, float factor, uint64_t key, const float *restrict x,
                                   int8_t *restrict q) {
    const uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
    const int32_t limit = last * (1 << 24);
    for (int j = 0; j < n; j++) {
        int32_t v = (int32_t)(x[j] * factor);
        v = v > limit ? limit : v;
        v = v < -limit ? -limit : v;
        q[j] = (int8_t)((v + (int32_t)(kb_random_bits(first, second, (uint32_t)(place + j)) >> 8)) >> 24);
    }
}

/* minus (n,) = 1 with probability (1 - x * factor / 2^23) / 2, else 0 */
static inline void kb_draw_signs(int n, int place, float factor, uint64_t key, const float *restrict x,
                                 uint8_t *restrict minus) {
    const uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
    for (int j = 0; j < n; j++) {
        const int32_t threshold = (int32_t)(x[j] * factor) + (1 << 23);
        minus[j] = (int32_t)(kb_random_bits(first, second, (uint32_t)(place + j)) >> 8) >= threshold;
    }
}

/* q (n,) int8 in [-127, 127] */
KBDFL_CLONES static int kb_quantize_int8(int64_t n, int block, uint64_t seed, const float *restrict x,
                                         int8_t *restrict q, float *restrict scales) {
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        if ((scales[b] = kb_block_scale(m, 127, x + start)) < 0) return -1;
        if (scales[b] == 0)
            memset(q + start, 0, (size_t)m);
        else
            kb_round_levels(m, 0, 127, ONE_STEP / scales[b], kb_block_key(seed, (uint64_t)b), x + start, q + start);
    }
    return 0;
}

/* packed (ceil(n / 2),) nibbles in [-7, 7]; `block` is even */
KBDFL_CLONES static int kb_quantize_4bit(int64_t n, int block, uint64_t seed, const float *restrict x,
                                         uint8_t *restrict packed, float *restrict scales) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        if ((scales[b] = kb_block_scale(m, 7, x + start)) < 0) return -1;
        const uint64_t key = kb_block_key(seed, (uint64_t)b);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            if (scales[b] == 0)
                memset(levels, 0, PIECE);
            else
                kb_round_levels(piece, p, 7, ONE_STEP / scales[b], key, x + start + p, levels);
            kb_pack_nibbles(piece, levels, packed + (start + p) / 2);
        }
    }
    return 0;
}

/* packed (ceil(n / 4),) levels -1, 0 and 1; `block` is a multiple of 4 */
KBDFL_CLONES static int kb_quantize_2bit(int64_t n, int block, uint64_t seed, const float *restrict x,
                                         uint8_t *restrict packed, float *restrict scales) {
    int8_t levels[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        if ((scales[b] = kb_block_scale(m, 1, x + start)) < 0) return -1;
        const uint64_t key = kb_block_key(seed, (uint64_t)b);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            if (scales[b] == 0)
                memset(levels, 0, PIECE);
            else
                kb_round_levels(piece, p, 1, ONE_STEP / scales[b], key, x + start + p, levels);
            kb_pack_pairs(piece, levels, packed + (start + p) / 4);
        }
    }
    return 0;
}

/* ||x||^2 / ||x||_1 in SIGN_LANES partial sums of doubles: a fixed order, whatever the vector width. */
static inline float kb_sign_scale(int m, const float *restrict x) {
    double square[SIGN_LANES] = {0}, absolute[SIGN_LANES] = {0}, squares = 0, absolutes = 0;
    const int whole = m - m % SIGN_LANES;
    for (int j = 0; j < whole; j += SIGN_LANES)
        for (int k = 0; k < SIGN_LANES; k++) {
            square[k] += (double)x[j + k] * (double)x[j + k];
            absolute[k] += (double)fabsf(x[j + k]);
        }
    for (int j = whole; j < m; j++) {
        square[j - whole] += (double)x[j] * (double)x[j];
        absolute[j - whole] += (double)fabsf(x[j]);
    }
    for (int k = 0; k < SIGN_LANES; k++) {
        squares += square[k];
        absolutes += absolute[k];
    }
    return (float)(squares / absolutes);
}

/* packed (ceil(n / 8),) the values' own signs; `block` is a multiple of 8 */
KBDFL_CLONES KBDFL_EXACT static int kb_quantize_sign(int64_t n, int block, const float *restrict x,
                                                     uint8_t *restrict packed, float *restrict scales) {
    uint8_t minus[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        if ((scales[b] = kb_block_scale(m, 1, x + start)) < 0) return -1;
        const int vanishes = scales[b] == 0;
        if (!vanishes) scales[b] = kb_sign_scale(m, x + start);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            for (int j = 0; j < piece; j++) minus[j] = !vanishes && x[start + p + j] < 0;
            kb_pack_signs(piece, minus, packed + (start + p) / 8);
        }
    }
    return 0;
}

/* packed (ceil(n / 8),) signs; `block` is a multiple of 8 */
KBDFL_CLONES static int kb_quantize_1bit(int64_t n, int block, uint64_t seed, const float *restrict x,
                                         uint8_t *restrict packed, float *restrict scales) {
    uint8_t minus[PIECE];
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = kb_min(n - start, block);
        if ((scales[b] = kb_block_scale(m, 1, x + start)) < 0) return -1;
        const uint64_t key = kb_block_key(seed, (uint64_t)b);
        for (int p = 0; p < m; p += PIECE) {
            const int piece = kb_min(m - p, PIECE);
            if (scales[b] == 0)
                memset(minus, 0, PIECE);
            else
                kb_draw_signs(piece, p, 0.5f * ONE_STEP / scales[b], key, x + start + p, minus);
            kb_pack_signs(piece, minus, packed + (start + p) / 8);
        }
    }
    return 0;
}

#endif
