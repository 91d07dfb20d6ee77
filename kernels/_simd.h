/* The elementwise loops of the model, written so that GCC vectorises them at -O3.
 *
 * Each function is compiled several times (_clones.h), so an installed build needs no -march. `omp simd`
 * (compile-time only, -fopenmp-simd) names the few reductions whose order may change; nothing is compiled with
 * -ffast-math.
 *
 * Shapes: n rows (alive sentences), H cells, V words. All arrays are row-major float32.
 */
#ifndef KBDFL_SIMD_H
#define KBDFL_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "_clones.h"

/* exp(x) to 2 ulp on [-87, 88], clamped outside; NaN stays NaN. Cephes' polynomial after x = n ln2 + f. */
static inline float kb_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding and subtracting it rounds to an integer */
    float n = (x * 1.44269504088896341f + magic) - magic;
    float f = x - n * 0.693359375f;
    f = f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
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
 * m; dc (n,H) carries the gradient at c from the step after and leaves with the one for the step before. */
KBDFL_CLONES static void kb_cell_backward(int n, int H, float *restrict z, const float *restrict c_prev,
                                          const float *restrict tc, const float *restrict dm, float *restrict dc) {
    for (int i = 0; i < n; i++) {
        float *restrict g = z + (int64_t)i * 3 * H, *restrict f = g + H, *restrict o = f + H;
        const float *restrict ti = tc + (int64_t)i * H, *restrict di = dm + (int64_t)i * H;
        float *restrict ci = dc + (int64_t)i * H;
        const float *restrict pi = c_prev ? c_prev + (int64_t)i * H : NULL;
        for (int j = 0; j < H; j++) {
            float gate = g[j], forget = f[j], open = o[j], squashed = ti[j], previous = pi ? pi[j] : 0.0f;
            float cell = ci[j] + di[j] * open * (1.0f - squashed * squashed);
            g[j] = cell * (1.0f - forget) * (1.0f - gate * gate);
            f[j] = cell * (previous - gate) * forget * (1.0f - forget);
            o[j] = di[j] * squashed * open * (1.0f - open);
            ci[j] = cell * forget;
        }
    }
}

/* x (V,) += bias (V,); returns the largest sum. */
static inline float kb_add_bias(int V, float *restrict x, const float *restrict bias) {
    float peak = -INFINITY;
#pragma omp simd reduction(max : peak)
    for (int j = 0; j < V; j++) {
        float v = x[j] + bias[j];
        x[j] = v;
        peak = v > peak ? v : peak;
    }
    return peak;
}

/* One row of logits (V,) without bias -> softmax(logits + bias) * scale - scale at the target, in place.
 * Returns -log softmax[target]; target < 0 gives loss 0 and a row of zeros. */
KBDFL_CLONES static float kb_softmax_row(int V, float *restrict x, const float *restrict bias, int target,
                                         float scale) {
    if (target < 0) {
        memset(x, 0, sizeof(float) * (size_t)V);
        return 0.0f;
    }
    float peak = kb_add_bias(V, x, bias), total = 0.0f, chosen = x[target] - peak;
#pragma omp simd reduction(+ : total)
    for (int j = 0; j < V; j++) {
        float e = kb_exp(x[j] - peak);
        x[j] = e;
        total += e;
    }
    float factor = scale / total;
    for (int j = 0; j < V; j++) x[j] *= factor;
    x[target] -= scale;
    return logf(total) - chosen;
}

/* One row of logits (V,) without bias: -log softmax[target] into *loss; returns how many words (ids >= first)
 * score above the target, ties in favour of the smaller id. x becomes logits with bias. The comparisons are
 * written so that a NaN ranks a word last when it is the target and before the target when it is another: a
 * model that diverged scores badly, never perfectly. */
KBDFL_CLONES static int kb_rank_row(int V, float *restrict x, const float *restrict bias, int target, int first,
                                    float *restrict loss) {
    float peak = kb_add_bias(V, x, bias), total = 0.0f, own = x[target];
    int rank = 0;
#pragma omp simd reduction(+ : total)
    for (int j = 0; j < V; j++) total += kb_exp(x[j] - peak);
    *loss = logf(total) - (own - peak);
    for (int j = first; j < target; j++) rank += !(x[j] < own);
    for (int j = target + 1 > first ? target + 1 : first; j < V; j++) rank += !(x[j] <= own);
    return rank;
}

/* out (C,) += the sum over the n rows of a (n,C). */
KBDFL_CLONES static void kb_add_rows(int n, int C, const float *restrict a, float *restrict out) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < C; j++) out[j] += a[(int64_t)i * C + j];
}

/* out (n,) += a (n,). */
KBDFL_CLONES static void kb_add(int64_t n, const float *restrict a, float *restrict out) {
    for (int64_t j = 0; j < n; j++) out[j] += a[j];
}

/* The sum of squares of x (n,): float partial sums over stretches of 4096, double over these. */
KBDFL_CLONES static double kb_sum_squares(int64_t n, const float *restrict x) {
    double total = 0.0;
    for (int64_t start = 0; start < n; start += 4096) {
        int64_t end = start + 4096 < n ? start + 4096 : n;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t j = start; j < end; j++) part += x[j] * x[j];
        total += part;
    }
    return total;
}

/* x (n,) -= step * g (n,). */
KBDFL_CLONES static void kb_descend(int64_t n, float step, const float *restrict g, float *restrict x) {
    for (int64_t j = 0; j < n; j++) x[j] -= step * g[j];
}

/* out (n,) = a (n,) - b (n,); out may be a. */
KBDFL_CLONES static void kb_subtract(int64_t n, const float *a, const float *b, float *out) {
    for (int64_t j = 0; j < n; j++) out[j] = a[j] - b[j];
}

#endif
