/* Random bits that are a function of (seed, block, place in the block) and of nothing else. */
#ifndef KBDFL_RANDOM_BITS_H
#define KBDFL_RANDOM_BITS_H

#include <stdint.h>

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

#endif
