/* Exact sums of int8 levels in int32 and int64: acc (n,) += weight * q, modulo the width of acc.
 *
 * Returns whether a sum left its type. Additions modulo 2^32 and 2^64 are undone exactly by the negative weight, so
 * a caller that is told so can put everything back. |weight| is small enough for weight * q to fit.
 */
#ifndef KBDFL_INTEGER_SIMD_H
#define KBDFL_INTEGER_SIMD_H

#include <stdint.h>

#include "_clones.h"

/* A sum of two numbers of one sign overflowed if its sign is another. */
#define KBDFL_SUM_LEVELS(name, type, unsigned_type)                                                        \
    KBDFL_CLONES static int name(int64_t n, type weight, const int8_t *restrict q, type *restrict acc) {   \
        type overflow = 0;                                                                                 \
        for (int64_t j = 0; j < n; j++) {                                                                  \
            const type term = weight * q[j];                                                               \
            const type sum = (type)((unsigned_type)acc[j] + (unsigned_type)term);                          \
            overflow |= (acc[j] ^ sum) & (term ^ sum);                                                     \
            acc[j] = sum;                                                                                  \
        }                                                                                                  \
        return overflow < 0;                                                                               \
    }

KBDFL_SUM_LEVELS(kb_sum_int32, int32_t, uint32_t)
KBDFL_SUM_LEVELS(kb_sum_int64, int64_t, uint64_t)

#endif
