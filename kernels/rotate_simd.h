/* The loops behind rotate.pyx: random signs and the fast Walsh-Hadamard transform.
 *
 * A butterfly is one addition and one subtraction, strides go 1, 2, 4, ..., and the scale is one multiplication at the
 * end: whatever the instruction set, every value is rounded in the same places.
 */
#ifndef KBDFL_ROTATE_SIMD_H
#define KBDFL_ROTATE_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "_clones.h"
#include "random_bits.h"

/* y (n,) gets the signs that the block's key draws: bit j % 32 of the hash of j / 32, a set one for minus */
static inline void kb_flip_signs(int n, uint64_t key, float *restrict y) {
    const uint32_t first = (uint32_t)key, second = (uint32_t)(key >> 32);
    for (int start = 0; start < n; start += 32) {
        const uint32_t bits = kb_random_bits(first, second, (uint32_t)(start / 32));
        const int m = n - start < 32 ? n - start : 32;
        for (int j = 0; j < m; j++) {
            uint32_t value;
            memcpy(&value, y + start + j, 4);
            value ^= (bits >> j & 1u) << 31;
            memcpy(y + start + j, &value, 4);
        }
    }
}

/* Strides 1, 2 and 4 of eight values at once, while they are in registers. */
static inline void kb_eight(float *restrict y) {
    const float a0 = y[0] + y[1], a1 = y[0] - y[1], a2 = y[2] + y[3], a3 = y[2] - y[3];
    const float a4 = y[4] + y[5], a5 = y[4] - y[5], a6 = y[6] + y[7], a7 = y[6] - y[7];
    const float b0 = a0 + a2, b2 = a0 - a2, b1 = a1 + a3, b3 = a1 - a3;
    const float b4 = a4 + a6, b6 = a4 - a6, b5 = a5 + a7, b7 = a5 - a7;
    y[0] = b0 + b4; y[4] = b0 - b4; y[1] = b1 + b5; y[5] = b1 - b5;
    y[2] = b2 + b6; y[6] = b2 - b6; y[3] = b3 + b7; y[7] = b3 - b7;
}

/* y (n,), n a power of two, times the Hadamard matrix / sqrt(n), in place */
static inline void kb_hadamard(int n, float *restrict y) {
    int stride = 1;
    if (n >= 8) {
        for (int i = 0; i < n; i += 8) kb_eight(y + i);
        stride = 8;
    }
    for (; stride < n; stride *= 2)
        for (int i = 0; i < n; i += 2 * stride) {
            float *restrict low = y + i, *restrict high = y + i + stride;
            for (int j = 0; j < stride; j++) {
                const float sum = low[j] + high[j], difference = low[j] - high[j];
                low[j] = sum;
                high[j] = difference;
            }
        }
    const float scale = (float)(1.0 / sqrt((double)n));
    for (int j = 0; j < n; j++) y[j] *= scale;
}

/* The next block's length: `block`, or the largest power of two that is left. */
static inline int kb_next_block(int64_t left, int block) {
    while (block > left) block /= 2;
    return block;
}

/* y (n,), in place, rotated block by block, or `back`; the b-th block's signs have the key (seed, b) */
KBDFL_CLONES static void kb_rotate(int64_t n, int block, uint64_t seed, int back, float *restrict y) {
    uint64_t b = 0;
    for (int64_t start = 0; start < n; start += block, b++) {
        block = kb_next_block(n - start, block);
        if (!back) kb_flip_signs(block, kb_block_key(seed, b), y + start);
        kb_hadamard(block, y + start);
        if (back) kb_flip_signs(block, kb_block_key(seed, b), y + start);
    }
}

#endif
