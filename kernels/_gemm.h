/* All matrix products of the model: c[j][m] = from[j][m] + sum over k of panel[k][m] * b[k][j].
 *
 * The m side runs along vector lanes, the j side is broadcast from memory one number at a time. A block of
 * accumulators stays in registers while k runs (Goto and van de Geijn 2008, "Anatomy of high-performance matrix
 * multiplication"). A general BLAS copies both operands before it multiplies; with inner lengths of 64 or 96 that
 * copying costs a fifth of the time, so here
 *   - the m side is read in panels of KB_PANEL lanes, packed once and used by every row and step that needs it;
 *   - the j side is read where it lies: strides bk (along k) and bj (along j), in floats.
 * Every number of c is summed in the order of k, on every processor.
 *
 * The block's shape depends on the registers, so _gemm_isa.h is compiled once per instruction set and kb_gemm
 * picks one when it is called.
 */
#ifndef KBDFL_GEMM_H
#define KBDFL_GEMM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KB_PANEL 64 /* lanes of a panel; a row of it may be read up to the next multiple of KB_ALIGN */
#define KB_ALIGN 16

#if defined(__GNUC__) || defined(__clang__)
#define KB_INLINE static inline __attribute__((always_inline))
#define KB_VECTORS 1
#else
#define KB_INLINE static inline
#define KB_VECTORS 0
#endif

/* Loops over a block's accumulators must vanish: in memory, they would be many times slower. */
#if defined(__clang__)
#define KB_UNROLL(gcc) _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define KB_UNROLL(gcc) _Pragma(gcc)
#else
#define KB_UNROLL(gcc)
#endif

/* KB_LANES floats a vector; a block has at most KB_WIDTH vectors along m and KB_BLOCK accumulators. */
#if !KB_VECTORS || defined(KBDFL_NO_VECTORS)
#define KB_ISA(name) name##_base
#define KB_TARGET
#define KB_LANES 1
#define KB_WIDTH 2
#define KB_BLOCK 12
#include "_gemm_isa.h"
#elif defined(__aarch64__)
#define KB_ISA(name) name##_base
#define KB_TARGET
#define KB_LANES 4
#define KB_WIDTH 4
#define KB_BLOCK 24
#include "_gemm_isa.h"
#else
#define KB_ISA(name) name##_base
#define KB_TARGET
#define KB_LANES 4
#define KB_WIDTH 2
#define KB_BLOCK 12
#include "_gemm_isa.h"
#if defined(__x86_64__) && !defined(KBDFL_NO_CLONES)
#define KB_DISPATCH 1
#define KB_ISA(name) name##_avx2
#define KB_TARGET __attribute__((target("avx2,fma")))
#define KB_LANES 8
#define KB_WIDTH 2
#define KB_BLOCK 12
#include "_gemm_isa.h"
#define KB_ISA(name) name##_avx512
#define KB_TARGET __attribute__((target("avx512f,avx512vl,avx2,fma")))
#define KB_LANES 16
#define KB_WIDTH 4
#define KB_BLOCK 24
#include "_gemm_isa.h"
#endif
#endif

/* Floats of a packed (K,M) operand. */
static inline size_t kb_packed_floats(size_t K, size_t M) { return (M + KB_PANEL - 1) / KB_PANEL * KB_PANEL * K; }

/* Pack element (k,m) = source[k * sk + m * sm] into panels of (K,KB_PANEL), one after another, zeros beyond M. */
static void kb_pack(int M, int K, const float *restrict source, int64_t sk, int64_t sm, float *restrict packed) {
    for (int start = 0; start < M; start += KB_PANEL, packed += (int64_t)K * KB_PANEL) {
        const int lanes = M - start < KB_PANEL ? M - start : KB_PANEL;
        const float *restrict corner = source + start * sm;
        if (lanes < KB_PANEL) memset(packed, 0, sizeof(float) * (size_t)K * KB_PANEL);
        if (sm == 1) {
            for (int k = 0; k < K; k++)
                memcpy(packed + (int64_t)k * KB_PANEL, corner + k * sk, sizeof(float) * (size_t)lanes);
        } else {
            for (int block = 0; block < K; block += KB_ALIGN) { /* what is read and written stays in the cache */
                const int end = block + KB_ALIGN < K ? block + KB_ALIGN : K;
                for (int m = 0; m < lanes; m++)
                    for (int k = block; k < end; k++) packed[(int64_t)k * KB_PANEL + m] = corner[k * sk + m * sm];
            }
        }
    }
}

typedef void (*kb_gemm_function)(int M, int N, int K, const float *panel, int64_t stride, int64_t next, const float *b,
                                 int64_t bk, int64_t bj, const float *from, int64_t ldf, float *c, int64_t ldc);

enum { KB_BASE, KB_AVX2, KB_AVX512 };

/* The variant of an instruction set, or NULL where this build or this processor does not have it. */
static inline kb_gemm_function kb_gemm_of(int instructions) {
#ifdef KB_DISPATCH
    if (instructions == KB_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") ? kb_gemm_avx512 : NULL;
    if (instructions == KB_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? kb_gemm_avx2 : NULL;
#endif
    return instructions == KB_BASE ? kb_gemm_base : NULL;
}

/* c (N,M) = from (N,M) + panel (K,M)^T b (K,N)^T, with row strides ldc and ldf (0 repeats one row); from NULL is
 * zero and may be c itself. The panels begin at `panel`, their rows are `stride` floats apart and the panels
 * `next`: KB_PANEL and K * KB_PANEL for a packed operand, the row length and KB_PANEL for a plain one. */
static inline void kb_gemm(int M, int N, int K, const float *panel, int64_t stride, int64_t next, const float *b,
                           int64_t bk, int64_t bj, const float *from, int64_t ldf, float *c, int64_t ldc) {
    kb_gemm_function best = kb_gemm_of(KB_AVX512);
    if (best == NULL) best = kb_gemm_of(KB_AVX2);
    if (best == NULL) best = kb_gemm_base;
    best(M, N, K, panel, stride, next, b, bk, bj, from, ldf, c, ldc);
}

#endif
