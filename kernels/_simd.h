/* The elementwise loops of the model, written so that GCC vectorises them at -O3.
 *
 * Each function is compiled several times (_clones.h), so an installed build needs no -march. `omp simd`
 * (compile-time only, -fopenmp-simd) names the few reductions whose order may change; nothing is compiled with
 * -ffast-math.
 *
 * Shapes: n rows (alive sentences), H cells, R rows of a tile. All arrays are row-major float32.
 */
#ifndef KBDFL_SIMD_H
#define KBDFL_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "_clones.h"

/* exp(x) to 2 ulp on [-87, 88], clamped outside; NaN stays NaN. Cephes' polynomial after x = n ln2 + f. n is never
 * converted to a whole number, which C leaves undefined for NaN: it stands in the low bits of `rounded`. */
static inline float kb_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float magic = 12582912.0f; /* 1.5 * 2^23: a sum with it is rounded to an integer */
    const float rounded = x * 1.44269504088896341f + magic, n = rounded - magic;
    float f = x - n * 0.693359375f;
    f = f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    uint32_t bits;
    memcpy(&bits, &rounded, 4);
    bits = (bits + 127u) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

static inline float kb_sigmoid(float x) { return 1.0f / (1.0f + kb_exp(-x)); }
static inline float kb_tanh(float x) { return 1.0f - 2.0f / (1.0f + kb_exp(2.0f * x)); }

/* z (n,3H) pre-activations -> tanh(g), s(f), s(o) in place; c = s(f) c_prev + (1 - s(f)) tanh(g); tc = tanh(c);
 * m = s(o) tc. c_prev is NULL at the first step (zeros). c, tc, m are (n,H). */
KBDFL_CLONES static void kb_cell_forward(int n, int H, float *restrict z, const float *restrict c_prev,
                                         float *restrict c, float *restrict tc, float *restrict m) {
    for (int i = 0; i < n; i++) {
        float *restrict g = z + (int64_t)i * 3 * H, *restrict f = g + H, *restrict o = f + H;
        float *restrict ci = c + (int64_t)i * H, *restrict ti = tc + (int64_t)i * H, *restrict mi = m + (int64_t)i * H;
        if (c_prev) {
            const float *restrict pi = c_prev + (int64_t)i * H;
            for (int j = 0; j < H; j++) {
                float gate = kb_tanh(g[j]), forget = kb_sigmoid(f[j]), open = kb_sigmoid(o[j]);
                float cell = gate + forget * (pi[j] - gate), squashed = kb_tanh(cell);
                g[j] = gate; f[j] = forget; o[j] = open; ci[j] = cell; ti[j] = squashed; mi[j] = open * squashed;
            }
        } else {
            for (int j = 0; j < H; j++) {
                float gate = kb_tanh(g[j]), forget = kb_sigmoid(f[j]), open = kb_sigmoid(o[j]);
                float cell = gate - forget * gate, squashed = kb_tanh(cell);
                g[j] = gate; f[j] = forget; o[j] = open; ci[j] = cell; ti[j] = squashed; mi[j] = open * squashed;
            }
        }
    }
}

/* Backward of the above. z holds the activated gates and becomes d(pre-activations); dm (n,H) is the gradient at
 * m; dc (n,H) carries the gradient at c from the step after and leaves with the one for the step before. tc, of
 * no more use, becomes m again, which the projection's gradient needs. */
KBDFL_CLONES static void kb_cell_backward(int n, int H, float *restrict z, const float *restrict c_prev,
                                          float *restrict tc, const float *restrict dm, float *restrict dc) {
    for (int i = 0; i < n; i++) {
        float *restrict g = z + (int64_t)i * 3 * H, *restrict f = g + H, *restrict o = f + H;
        float *restrict ti = tc + (int64_t)i * H, *restrict ci = dc + (int64_t)i * H;
        const float *restrict di = dm + (int64_t)i * H;
        const float *restrict pi = c_prev ? c_prev + (int64_t)i * H : NULL;
        for (int j = 0; j < H; j++) {
            float gate = g[j], forget = f[j], open = o[j], squashed = ti[j], previous = pi ? pi[j] : 0.0f;
            float cell = ci[j] + di[j] * open * (1.0f - squashed * squashed);
            g[j] = cell * (1.0f - forget) * (1.0f - gate * gate);
            f[j] = cell * (previous - gate) * forget * (1.0f - forget);
            o[j] = di[j] * squashed * open * (1.0f - open);
            ci[j] = cell * forget;
            ti[j] = open * squashed;
        }
    }
}

/* The output softmax works on blocks of logits (words,R): a word's logits for R rows lie side by side, so that a
 * row keeps to its lane and no sum runs across lanes. Padding lanes hold whatever a zero row gives. The softmax is
 * online (Milakov and Gimelshein 2018, arXiv 1805.02867): each block is exponentiated against the peaks so far,
 * and scaled once they are final. */

/* x (words,R) += bias (words,); peak (R,) becomes the largest logit of each row so far. */
KBDFL_CLONES static void kb_add_bias(int words, int R, float *restrict x, const float *restrict bias,
                                     float *restrict peak) {
    for (int v = 0; v < words; v++, x += R)
        for (int i = 0; i < R; i++) {
            float logit = x[i] + bias[v];
            x[i] = logit;
            peak[i] = logit > peak[i] ? logit : peak[i];
        }
}

/* x (words,R) -> exp(x - peak); total (R,), the sum of the exponentials so far, moves from peak `before` to `peak`
 * and takes these in. */
KBDFL_CLONES static void kb_exp_block(int words, int R, float *restrict x, const float *restrict before,
                                      const float *restrict peak, float *restrict total) {
    for (int i = 0; i < R; i++) total[i] *= kb_exp(before[i] - peak[i]);
    for (int v = 0; v < words; v++, x += R)
        for (int i = 0; i < R; i++) {
            float e = kb_exp(x[i] - peak[i]);
            x[i] = e;
            total[i] += e;
        }
}

/* x (words,R) from exp(logit - then) to exp(logit - peak) * scale; sums (words,) += each word's sum over rows. */
KBDFL_CLONES static void kb_scale_block(int words, int R, float *restrict x, const float *restrict then,
                                        const float *restrict peak, const float *restrict scale, float *restrict factor,
                                        float *restrict sums) {
    for (int i = 0; i < R; i++) factor[i] = kb_exp(then[i] - peak[i]) * scale[i];
    for (int v = 0; v < words; v++, x += R) {
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < R; i++) {
            float p = x[i] * factor[i];
            x[i] = p;
            sum += p;
        }
        sums[v] += sum;
    }
}

/* How many words of the block x (words,R), which begins at word `start`, score above each row's target, whose
 * logit is own (R,): ranks (R,) += that. Words below `first` do not count; ties go to the smaller id. A NaN ranks a
 * word last when it is the target and before the target when it is another: a model that diverged scores badly,
 * never perfectly. */
KBDFL_CLONES static void kb_rank_block(int start, int words, int R, const float *restrict x, const float *restrict own,
                                       const int32_t *restrict targets, int first, int32_t *restrict ranks) {
    for (int v = first > start ? first - start : 0; v < words; v++)
        for (int i = 0; i < R; i++) {
            float logit = x[(int64_t)v * R + i];
            int above = start + v < targets[i] ? !(logit < own[i]) : !(logit <= own[i]);
            ranks[i] += start + v == targets[i] ? 0 : above;
        }
}

/* Ask for `floats` numbers at p, so that they are in the second cache once they are needed. */
static inline void kb_prefetch(const float *p, int64_t floats) {
#if defined(__GNUC__) || defined(__clang__)
    for (int64_t j = 0; j < floats; j += 16) __builtin_prefetch(p + j, 0, 2);
#endif
}

/* out (C,) += the sum over the n rows of a (n,C), whose rows are `stride` apart. */
KBDFL_CLONES static void kb_add_rows(int n, int C, int64_t stride, const float *restrict a, float *restrict out) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < C; j++) out[j] += a[i * stride + j];
}

/* out (n,) += a (n,). */
KBDFL_CLONES static void kb_add(int64_t n, const float *restrict a, float *restrict out) {
    for (int64_t j = 0; j < n; j++) out[j] += a[j];
}

/* x (n,) -= step * g (n,). */
KBDFL_CLONES static void kb_descend(int64_t n, float step, const float *restrict g, float *restrict x) {
    for (int64_t j = 0; j < n; j++) x[j] -= step * g[j];
}

/* One step of SGD with what may bend it: v = momentum v + share g + proximal (x - origin) + correction, x -= rate v.
 * All are (n,); v NULL stands for no momentum, correction NULL for none. */
KBDFL_CLONES static void kb_descend_bent(int64_t n, float rate, float share, float proximal, float momentum,
                                         const float *restrict g, const float *restrict origin,
                                         const float *restrict correction, float *restrict v, float *restrict x) {
    for (int64_t j = 0; j < n; j++) {
        float d = share * g[j] + proximal * (x[j] - origin[j]);
        if (correction) d += correction[j];
        if (v) v[j] = d = d + momentum * v[j];
        x[j] -= rate * d;
    }
}

/* out (n,) = a (n,) - b (n,); out may be a. */
KBDFL_CLONES static void kb_subtract(int64_t n, const float *a, const float *b, float *out) {
    for (int64_t j = 0; j < n; j++) out[j] = a[j] - b[j];
}

#endif
