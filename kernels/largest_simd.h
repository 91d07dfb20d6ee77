/* The k largest magnitudes, exactly and without sorting.
 *
 * The k-th largest of n whole numbers is found bit by bit: 31 counting passes at the most, whatever the numbers are.
 * So that they need not go over all n, the words are cut into chunks of 16. The k-th largest of the chunks' tops is
 * a lower bound of the k-th largest word, since k chunks have a word as large; and the k largest words lie in the k
 * chunks with the largest tops, those with equal tops taken from the left. Only these words are candidates.
 */
#ifndef KBDFL_LARGEST_SIMD_H
#define KBDFL_LARGEST_SIMD_H

#include "_clones.h"
#include "float_bits.h"

#define CHUNK 16

/* tops (ceil(n / 16),): the largest magnitude of each chunk; returns the largest of all. */
KBDFL_CLONES static int32_t kb_chunk_tops(int64_t n, const float *restrict x, int32_t *restrict tops) {
    const int64_t whole = n / CHUNK;
    for (int64_t c = 0; c < whole; c++) tops[c] = kb_top_bits(CHUNK, x + CHUNK * c);
    if (n % CHUNK) tops[whole] = kb_top_bits(n % CHUNK, x + CHUNK * whole);
    return kb_top_bits((n + CHUNK - 1) / CHUNK, tops);
}

KBDFL_CLONES static int32_t kb_count_from(int64_t n, const void *words, int32_t floor) {
    int32_t count = 0;
    for (int64_t j = 0; j < n; j++) count += kb_magnitude(words, j) >= floor;
    return count;
}

/* positions (k,): where the k largest of n words are, ascending, of equal words the first; k <= n < 2^31.
 * Returns a number that all k reach. */
static int32_t kb_largest(int64_t n, int64_t k, const void *words, int32_t *positions) {
    int32_t floor = 0;
    for (int32_t bit = 1 << 30; bit > 0; bit >>= 1) {
        const int32_t count = kb_count_from(n, words, floor | bit);
        if (count >= k) floor |= bit;
        if (count == k) break;
    }
    int64_t ties = k - kb_count_from(n, words, floor + 1), found = 0;
    for (int64_t j = 0; found < k; j++) {
        const int32_t word = kb_magnitude(words, j);
        const int tie = (word == floor) & (ties > 0);
        positions[found] = (int32_t)j;
        found += (word > floor) | tie;
        ties -= tie;
    }
    return floor;
}

/* indices (k,): where the k largest magnitudes of x (n,) are, ascending, of equal ones the first.
 * tops (ceil(n / 16),), spots and magnitudes (min(n, 16 k),) are scratch. Returns -1 for a NaN or an infinity. */
static int kb_topk(int64_t n, int64_t k, const float *x, int32_t *tops, int32_t *spots, int32_t *magnitudes,
                   int32_t *indices) {
    const int64_t chunks = (n + CHUNK - 1) / CHUNK;
    if (kb_chunk_tops(n, x, tops) >= INFINITY_BITS) return -1;
    if (k >= chunks) {
        kb_largest(n, k, x, indices);
        return 0;
    }
    const int32_t floor = kb_largest(chunks, k, tops, indices);
    int64_t candidates = 0;
    for (int64_t c = 0; c < k; c++) {
        const int64_t start = (int64_t)indices[c] * CHUNK, end = start + CHUNK < n ? start + CHUNK : n;
        for (int64_t j = start; j < end; j++) {
            const int32_t magnitude = kb_magnitude(x, j);
            spots[candidates] = (int32_t)j;
            magnitudes[candidates] = magnitude;
            candidates += magnitude >= floor;
        }
    }
    kb_largest(candidates, k, magnitudes, indices);
    for (int64_t j = 0; j < k; j++) indices[j] = spots[indices[j]];
    return 0;
}

#endif
