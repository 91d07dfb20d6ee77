/* The loops behind quantize.pyx and accumulate.pyx, written so that GCC vectorises them at -O3.
 *
 * Quantising is one multiplication in floating point and whole numbers from there on, so that every processor
 * and the numpy twin give the same bytes. With s the scale of a block, x / s lies in [-127, 127]; in units of
 * 2^-24 it fits an int32. Adding a uniform 24-bit number and shifting 24 bits to the right rounds up with
 * exactly the probability of the fraction, and the largest sum there can be is 127 * 2^24 + 2^24 - 1 = 2^31 - 1.
 *
 * n elements in blocks of `block` (the last may be shorter); q (n,) int8; scales (ceil(n / block),) float32.
 */
#ifndef KBDFL_QUANTIZE_SIMD_H
#define KBDFL_QUANTIZE_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "_clones.h"

#define SUM_LANES 16
#define ONE_STEP 16777216.0f           /* 2^24: one quantisation step in fixed point */
#define LAST_STEP (127 * (1 << 24))
#define LARGEST_BITS 0x7F000000        /* of 2^127: above it 127 * scale might round to infinity */
#define SMALLEST_BLOCK 1.2621774483536189e-29f /* 2^-96: below it 2^24 / scale would leave float32 */

/* SplitMix64 (Steele, Lea and Flood 2014): the b-th output of the sequence that starts at `seed`. */
static inline uint64_t kb_block_key(uint64_t seed, uint64_t b) {
    uint64_t z = seed + (b + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* 32 random bits for element j of a block whose key is (first, second): a keyed form of the lowbias32 hash. */
static inline uint32_t kb_random_bits(uint32_t first, uint32_t second, uint32_t j) {
    uint32_t h = j * UINT32_C(0x9E3779B9) + first;
    h ^= h >> 16;
    h *= UINT32_C(0x7FEB352D);
    h += second;
    h ^= h >> 15;
    h *= UINT32_C(0x846CA68B);
    return h ^ (h >> 16);
}

/* The bits of max |x|: magnitudes of floats are ordered like their bits, and infinity and NaN come last. */
static inline int32_t kb_top_bits(int64_t n, const float *restrict x) {
    int32_t top = 0;
    for (int64_t j = 0; j < n; j++) {
        int32_t bits;
        memcpy(&bits, x + j, 4);
        bits &= 0x7FFFFFFF;
        top = bits > top ? bits : top;
    }
    return top;
}

static inline void kb_round_block(int n, float factor, uint64_t key, const float *restrict x, int8_t *restrict q) {
    const uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
    for (int j = 0; j < n; j++) {
        int32_t v = (int32_t)(x[j] * factor);
        v = v > LAST_STEP ? LAST_STEP : v;
        v = v < -LAST_STEP ? -LAST_STEP : v;
        q[j] = (int8_t)((v + (int32_t)(kb_random_bits(first, second, (uint32_t)j) >> 8)) >> 24);
    }
}

/* Returns 0, or -1 at the first block with a NaN, an infinity or a magnitude above 2^127 in it. */
KBDFL_CLONES static int kb_quantize_int8(int64_t n, int block, uint64_t seed, const float *restrict x,
                                         int8_t *restrict q, float *restrict scales) {
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = n - start < block ? (int)(n - start) : block;
        const int32_t top = kb_top_bits(m, x + start);
        if (top > LARGEST_BITS) return -1;
        float largest;
        memcpy(&largest, &top, 4);
        if (largest < SMALLEST_BLOCK) {
            scales[b] = 0.0f;
            memset(q + start, 0, (size_t)m);
            continue;
        }
        scales[b] = largest / 127.0f;
        kb_round_block(m, ONE_STEP / scales[b], kb_block_key(seed, (uint64_t)b), x + start, q + start);
    }
    return 0;
}

/* out = q * scale */
KBDFL_CLONES static void kb_dequantize_int8(int64_t n, int block, const int8_t *restrict q,
                                            const float *restrict scales, float *restrict out) {
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = n - start < block ? (int)(n - start) : block;
        const float scale = scales[b];
        const int8_t *restrict qb = q + start;
        float *restrict ob = out + start;
        for (int j = 0; j < m; j++) ob[j] = (float)qb[j] * scale;
    }
}

/* acc += (weight * scale) * q */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_int8(int64_t n, int block, double weight,
                                                        const int8_t *restrict q, const float *restrict scales,
                                                        float *restrict acc) {
    for (int64_t start = 0, b = 0; start < n; start += block, b++) {
        const int m = n - start < block ? (int)(n - start) : block;
        const float step = (float)(weight * (double)scales[b]);
        const int8_t *restrict qb = q + start;
        float *restrict ab = acc + start;
        for (int j = 0; j < m; j++) ab[j] = ab[j] + (float)qb[j] * step;
    }
}

/* acc += weight * x */
KBDFL_CLONES KBDFL_EXACT static void kb_accumulate_float32(int64_t n, float weight, const float *restrict x,
                                                           float *restrict acc) {
    for (int64_t j = 0; j < n; j++) acc[j] = acc[j] + x[j] * weight;
}

/* x *= factor */
KBDFL_CLONES static void kb_scale(int64_t n, float factor, float *restrict x) {
    for (int64_t j = 0; j < n; j++) x[j] *= factor;
}

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

#endif
