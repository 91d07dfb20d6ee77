/* Long loops start with what lies before a cache line: vectors that straddle two lines are a third slower. */
#ifndef KBDFL_ALIGNED_H
#define KBDFL_ALIGNED_H

#include <stdint.h>

/* How many of n words of 32 bits stand before the first one at a multiple of 64 bytes. */
static inline int64_t kb_unaligned(int64_t n, const void *words) {
    const int64_t lead = (int64_t)(-(uintptr_t)words % 64 / 4);
    return lead < n ? lead : n;
}

#endif
