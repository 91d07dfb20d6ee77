/* Magnitudes of floats as whole numbers: they are ordered alike, and infinity and NaN come last. */
#ifndef KBDFL_FLOAT_BITS_H
#define KBDFL_FLOAT_BITS_H

#include <stdint.h>
#include <string.h>

#define INFINITY_BITS 0x7F800000

/* Word j of an array of int32 or float32, without the sign. */
static inline int32_t kb_magnitude(const void *words, int64_t j) {
    int32_t bits;
    memcpy(&bits, (const char *)words + 4 * j, 4);
    return bits & 0x7FFFFFFF;
}

/* The largest of n magnitudes, 0 of none. */
static inline int32_t kb_top_bits(int64_t n, const void *words) {
    int32_t top = 0;
    for (int64_t j = 0; j < n; j++) {
        const int32_t bits = kb_magnitude(words, j);
        top = bits > top ? bits : top;
    }
    return top;
}

#endif
