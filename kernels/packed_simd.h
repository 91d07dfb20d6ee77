/* Two or four levels a byte and eight signs a byte.
 *
 * Nibbles: element 2i is the low half of byte i, element 2i + 1 the high half, both in two's complement and in
 * [-7, 7]. Pairs of bits: element j has bits 2 (j % 4) and the next of byte j / 4, in two's complement and in
 * [-1, 1]. Signs: element j is bit j % 8 of byte j / 8, and a set bit means minus. What is left of the last byte is
 * zero. A piece is what is packed or unpacked at a time; it stays in the first-level cache.
 */
#ifndef KBDFL_PACKED_SIMD_H
#define KBDFL_PACKED_SIMD_H

#include <stdint.h>
#include <string.h>

#include "_clones.h"

#define PIECE 256

/* The length of the last block, which may be shorter. */
static inline int kb_min(int64_t left, int block) { return left < block ? (int)left : block; }

/* levels (n,) int8 -> packed (ceil(n / 2),); levels[n] is written if n is odd. */
static inline void kb_pack_nibbles(int n, int8_t *restrict levels, uint8_t *restrict packed) {
    if (n & 1) levels[n] = 0;
    for (int i = 0; i < (n + 1) / 2; i++)
        packed[i] = (uint8_t)((levels[2 * i] & 15) | (uint8_t)levels[2 * i + 1] << 4);
}

/* packed (ceil(n / 2),) -> levels (n rounded up to 2,) int8 */
static inline void kb_unpack_nibbles(int n, const uint8_t *restrict packed, int8_t *restrict levels) {
    for (int i = 0; i < (n + 1) / 2; i++) {
        levels[2 * i] = (int8_t)(((packed[i] & 15) ^ 8) - 8);
        levels[2 * i + 1] = (int8_t)((packed[i] >> 4 ^ 8) - 8);
    }
}

/* levels (n rounded up to 4,) int8 -> packed (ceil(n / 4),); what lies beyond n is written. */
static inline void kb_pack_pairs(int n, int8_t *restrict levels, uint8_t *restrict packed) {
    for (int j = n; j % 4; j++) levels[j] = 0;
    for (int i = 0; i < (n + 3) / 4; i++) {
        const int8_t *four = levels + 4 * i;
        packed[i] = (uint8_t)((four[0] & 3) | (four[1] & 3) << 2 | (four[2] & 3) << 4 | (four[3] & 3) << 6);
    }
}

/* packed (ceil(n / 4),) -> levels (n rounded up to 4,) int8 */
static inline void kb_unpack_pairs(int n, const uint8_t *restrict packed, int8_t *restrict levels) {
    for (int i = 0; i < (n + 3) / 4; i++)
        for (int k = 0; k < 4; k++) levels[4 * i + k] = (int8_t)(((packed[i] >> 2 * k & 3) ^ 2) - 2);
}

/* minus (n rounded up to 8,) of zeros and ones -> packed (ceil(n / 8),); what lies beyond n is written. */
static inline void kb_pack_signs(int n, uint8_t *restrict minus, uint8_t *restrict packed) {
    for (int j = n; j % 8; j++) minus[j] = 0;
    for (int i = 0; i < (n + 7) / 8; i++) {
        int byte = 0;
        for (int k = 0; k < 8; k++) byte |= minus[8 * i + k] << k;
        packed[i] = (uint8_t)byte;
    }
}

/* packed (ceil(n / 8),) -> signs (n rounded up to 8,), 1 or -1 */
static inline void kb_unpack_signs(int n, const uint8_t *restrict packed, int8_t *restrict signs) {
    for (int i = 0; i < (n + 7) / 8; i++)
        for (int k = 0; k < 8; k++) signs[8 * i + k] = (int8_t)(1 - 2 * (packed[i] >> k & 1));
}

/* Whether one of n bytes holds the nibble -8. */
KBDFL_CLONES static int kb_has_minus_eight(int64_t n, const uint8_t *restrict packed) {
    int found = 0;
    for (int64_t i = 0; i < n; i++) found |= (packed[i] & 15) == 8 || packed[i] >> 4 == 8;
    return found;
}

/* Whether one of n bytes holds the pair of bits -2. */
KBDFL_CLONES static int kb_has_minus_two(int64_t n, const uint8_t *restrict packed) {
    int found = 0;
    for (int64_t i = 0; i < n; i++) found |= packed[i] & ~(packed[i] << 1) & 0xAA;
    return found != 0;
}

#endif
