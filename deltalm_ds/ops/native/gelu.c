/* Exact GELU of x + bias, and what its backward pass needs, in one pass each. */
#include <math.h>
#include <stdlib.h>

#include "exponential.h"
#include "rows.h"

/* The normal distribution's cumulative share at x and its density.
 *
 * erf from Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is that of fp32 numbers near one.
 */
static inline float share_below(float x, float *density) {
    float half = x * 0.70710678f, size = half < 0 ? -half : half;
    float power = exp_of(-size * size);
    float t = 1 / (1 + 0.3275911f * size);
    float tail = 1.061405429f;
    tail = tail * t - 1.453152027f;
    tail = tail * t + 1.421413741f;
    tail = tail * t - 0.284496736f;
    tail = tail * t + 0.254829592f;
    tail = 0.5f * tail * t * power; /* the share above |x| */
    *density = 0.39894228f * power;
    return x < 0 ? tail : 1 - tail;
}

/* out = GELU(x + bias); x and out [tokens, n], bias [n]. */
void deltalm_gelu(void *out, const void *x, const void *bias, int64_t tokens, int64_t n, int64_t dtype,
                  int64_t threads) {
    float *biases = malloc(n * sizeof(float));
    load(biases, bias, n, dtype);
#pragma omp parallel for num_threads((int)threads)
    for (int64_t token = 0; token < tokens; token++) {
        float row[n];
        load(row, row_of(x, token, n, dtype), n, dtype);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float density, value = row[i] + biases[i];
            row[i] = value * share_below(value, &density);
        }
        store(row_of(out, token, n, dtype), row, n, dtype);
    }
    free(biases);
}

/* grad [tokens, n] becomes the gradient of x; grad_bias [n] is its sum over tokens; out [tokens, n] gets
 * GELU(x + bias) again. part_sums [parts, n] fp32 is workspace.
 */
void deltalm_gelu_backward(void *grad, void *grad_bias, void *out, float *part_sums, const void *x,
                           const void *bias, int64_t tokens, int64_t n, int64_t dtype, int64_t threads) {
    int64_t parts = parts_of(tokens);
    float *biases = malloc(n * sizeof(float));
    load(biases, bias, n, dtype);
#pragma omp parallel for num_threads((int)threads)
    for (int64_t part = 0; part < parts; part++) {
        float *sums = part_sums + n * part;
        memset(sums, 0, n * sizeof(float));
        int64_t end = (part + 1) * TOKENS_A_PART < tokens ? (part + 1) * TOKENS_A_PART : tokens;
        for (int64_t token = part * TOKENS_A_PART; token < end; token++) {
            float row[n], slope[n];
            load(row, row_of(x, token, n, dtype), n, dtype);
            load(slope, row_of(grad, token, n, dtype), n, dtype);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
                float density, value = row[i] + biases[i], share = share_below(value, &density);
                row[i] = value * share;
                slope[i] *= share + value * density;
                sums[i] += slope[i];
            }
            store(row_of(grad, token, n, dtype), slope, n, dtype);
            store(row_of(out, token, n, dtype), row, n, dtype);
        }
    }
    for (int64_t part = 1; part < parts; part++)
        for (int64_t i = 0; i < n; i++) part_sums[i] += part_sums[n * part + i];
    if (!parts) memset(part_sums, 0, n * sizeof(float));
    store(grad_bias, part_sums, n, dtype);
    free(biases);
}
