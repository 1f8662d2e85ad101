/* The end of a sub-layer in one pass over its tokens: bias, dropout, residual, LayerNorm, and its gradients. */
#include <math.h>
#include <stdlib.h>

#include "philox.h"
#include "rows.h"

/* sum = residual + dropout(x + bias), out = LayerNorm(sum); all [tokens, n] but bias, gamma, beta [n].
 *
 * d may be NULL: no dropout. gamma may be NULL: no LayerNorm, and beta, out, mean, rstd are not used.
 * mean and rstd [tokens] fp32 are those of `sum` as stored, so that the backward pass sees the same numbers.
 */
void deltalm_add_norm(void *out, void *sum, float *mean, float *rstd, const void *x, const void *bias,
                      const void *residual, const void *gamma, const void *beta, float epsilon,
                      const struct dropout *d, int64_t tokens, int64_t n, int64_t dtype, int64_t threads) {
    float *vectors = malloc(3 * n * sizeof(float));
    float *biases = vectors, *gains = vectors + n, *shifts = vectors + 2 * n;
    load(biases, bias, n, dtype);
    if (gamma) {
        load(gains, gamma, n, dtype);
        load(shifts, beta, n, dtype);
    }
#pragma omp parallel for num_threads((int)threads)
    for (int64_t token = 0; token < tokens; token++) {
        float row[n], carried[n];
        load(row, row_of(x, token, n, dtype), n, dtype);
        load(carried, row_of(residual, token, n, dtype), n, dtype);
        for (int64_t i = 0; i < n; i++) row[i] += biases[i];
        if (d) drop_row(d, token, row, n);
        for (int64_t i = 0; i < n; i++) row[i] += carried[i];
        store(row_of(sum, token, n, dtype), row, n, dtype);
        if (!gamma) continue;
        if (dtype == BF16) load(row, row_of(sum, token, n, dtype), n, dtype);
        float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < n; i++) total += row[i];
        float centre = total / (float)n;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < n; i++) squares += (row[i] - centre) * (row[i] - centre);
        float scale = 1 / sqrtf(squares / (float)n + epsilon);
        for (int64_t i = 0; i < n; i++) row[i] = (row[i] - centre) * scale * gains[i] + shifts[i];
        store(row_of(out, token, n, dtype), row, n, dtype);
        mean[token] = centre;
        rstd[token] = scale;
    }
    free(vectors);
}

/* Gradients of the above from grad [tokens, n]: grad_sum (also the residual's) and grad_x [tokens, n], and
 * grad_bias, grad_gamma, grad_beta [n].
 *
 * Without LayerNorm grad_sum is `grad` itself and not written; without dropout grad_x is grad_sum and not
 * written. part_sums [parts, 3, n] fp32 is workspace.
 */
void deltalm_add_norm_backward(void *grad_sum, void *grad_x, void *grad_bias, void *grad_gamma,
                               void *grad_beta, float *part_sums, const void *grad, const void *sum,
                               const float *mean, const float *rstd, const void *gamma,
                               const struct dropout *d, int64_t tokens, int64_t n, int64_t dtype, int64_t threads) {
    int64_t parts = parts_of(tokens);
    float *gains = malloc(n * sizeof(float));
    if (gamma) load(gains, gamma, n, dtype);
#pragma omp parallel for num_threads((int)threads)
    for (int64_t part = 0; part < parts; part++) {
        float *bias_sums = part_sums + 3 * n * part, *gamma_sums = bias_sums + n, *beta_sums = gamma_sums + n;
        memset(bias_sums, 0, 3 * n * sizeof(float));
        int64_t end = (part + 1) * TOKENS_A_PART < tokens ? (part + 1) * TOKENS_A_PART : tokens;
        for (int64_t token = part * TOKENS_A_PART; token < end; token++) {
            float row[n], normal[n];
            load(row, row_of(grad, token, n, dtype), n, dtype);
            if (gamma) {
                float centre = mean[token], scale = rstd[token], along_one = 0, along_normal = 0;
                load(normal, row_of(sum, token, n, dtype), n, dtype);
#pragma omp simd reduction(+ : along_one, along_normal)
                for (int64_t i = 0; i < n; i++) {
                    normal[i] = (normal[i] - centre) * scale;
                    gamma_sums[i] += row[i] * normal[i];
                    beta_sums[i] += row[i];
                    row[i] *= gains[i];
                    along_one += row[i];
                    along_normal += row[i] * normal[i];
                }
                along_one /= (float)n;
                along_normal /= (float)n;
                for (int64_t i = 0; i < n; i++)
                    row[i] = (row[i] - along_one - normal[i] * along_normal) * scale;
                store(row_of(grad_sum, token, n, dtype), row, n, dtype);
            }
            if (d) {
                drop_row(d, token, row, n);
                store(row_of(grad_x, token, n, dtype), row, n, dtype);
            }
            for (int64_t i = 0; i < n; i++) bias_sums[i] += row[i];
        }
    }
    for (int64_t part = 1; part < parts; part++)
        for (int64_t i = 0; i < 3 * n; i++) part_sums[i] += part_sums[3 * n * part + i];
    if (!parts) memset(part_sums, 0, 3 * n * sizeof(float));
    store(grad_bias, part_sums, n, dtype);
    if (gamma) {
        store(grad_gamma, part_sums + n, n, dtype);
        store(grad_beta, part_sums + 2 * n, n, dtype);
    }
    free(gains);
}
