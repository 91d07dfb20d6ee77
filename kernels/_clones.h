/* KBDFL_CLONES compiles a function once per x86-64 level; the loader picks the best one for the processor.
 *
 * It needs ifunc (glibc) and a GCC that knows the micro-architecture levels; elsewhere the plain build stands.
 * KBDFL_STREAM_CLONES is for loops that wait for memory: there 256-bit vectors are a tenth faster than 512.
 * KBDFL_EXACT forbids fusing a multiplication into an addition, so that every clone rounds alike and the same
 * input leaves the same bytes on every processor.
 */
#include <stdint.h> /* any header of glibc defines __GLIBC__ */

#ifndef KBDFL_CLONES
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(KBDFL_NO_CLONES)
#define KBDFL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define KBDFL_STREAM_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define KBDFL_CLONES
#define KBDFL_STREAM_CLONES
#endif
#endif

#ifndef KBDFL_EXACT
#if defined(__GNUC__) && !defined(__clang__)
#define KBDFL_EXACT __attribute__((optimize("fp-contract=off")))
#else
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
#define KBDFL_EXACT
#endif
#endif
