/* Where a vector is not zero: a phone that trained some words leaves long runs of either kind. */
#ifndef KBDFL_RUNS_SIMD_H
#define KBDFL_RUNS_SIMD_H

#include <stdint.h>

#include "_clones.h"

enum { STRETCH = 64 }; /* values that are looked at together */

/* The places where zeros begin or end in x (n,), before which there are zeros; into `changes` unless it is NULL.
 * Returns their number, and in `there` how many values are not zero. NaN is not zero. */
KBDFL_CLONES static int64_t kb_runs(int64_t n, const float *restrict x, int32_t *restrict changes,
                                    int64_t *restrict there) {
    int64_t found = 0, values = 0;
    int before = 0;
    for (int64_t start = 0; start < n; start += STRETCH) {
        const int m = n - start < STRETCH ? (int)(n - start) : STRETCH;
        int set = 0;
        for (int j = 0; j < m; j++) set += x[start + j] != 0.0f;
        values += set;
        if (set == (before ? m : 0)) continue;
        for (int j = 0; j < m; j++) {
            const int now = x[start + j] != 0.0f;
            if (now != before) {
                if (changes) changes[found] = (int32_t)(start + j);
                found++;
            }
            before = now;
        }
    }
    *there = values;
    return found;
}

#endif
