/* Sets of indices: int32, ascending. */
#ifndef KBDFL_INDICES_SIMD_H
#define KBDFL_INDICES_SIMD_H

#include "_clones.h"
#include "random_bits.h"

KBDFL_CLONES static int kb_ascends(int64_t k, const int32_t *restrict indices) {
    int falls = 0;
    for (int64_t j = 1; j < k; j++) falls |= indices[j] <= indices[j - 1];
    return !falls;
}

static inline int kb_lowest_bit(uint64_t bits) {
#ifdef __GNUC__
    return __builtin_ctzll(bits);
#else
    int place = 0;
    while (!(bits >> place & 1)) place++;
    return place;
#endif
}

/* indices (k,): a uniformly random set of k out of n < 2^31 (Floyd's algorithm: Bentley and Floyd 1987, "A sample of
 * brilliance"). taken (ceil(n / 64),) is scratch and comes as zeros. */
static void kb_shared_indices(int64_t n, int64_t k, uint64_t seed, uint64_t *restrict taken,
                              int32_t *restrict indices) {
    for (int64_t last = n - k; last < n; last++) {
        const uint64_t choices = (uint64_t)last + 1, bits = kb_block_key(seed, (uint64_t)last);
        /* floor(bits * choices / 2^64), of halves since the product has up to 95 bits */
        uint64_t t = ((bits >> 32) * choices + ((bits & 0xFFFFFFFF) * choices >> 32)) >> 32;
        if (taken[t / 64] >> t % 64 & 1) t = (uint64_t)last;
        taken[t / 64] |= UINT64_C(1) << t % 64;
    }
    for (int64_t word = 0, found = 0; found < k; word++)
        for (uint64_t bits = taken[word]; bits; bits &= bits - 1)
            indices[found++] = (int32_t)(64 * word + kb_lowest_bit(bits));
}

#endif
