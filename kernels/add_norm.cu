/* The end of a sub-layer: bias, dropout, residual connection and LayerNorm in one pass, and its gradients.
 *
 *     sum = residual + dropout(x + bias)
 *     out = (sum - mean) · rstd · gamma + beta         mean and 1/deviation over the features, eps in the
 * root
 *
 * Backward, with n features, g = grad_out · gamma, and s = (sum - mean) · rstd:
 *
 *     grad_sum = (g - mean(g) - s · mean(g · s)) · rstd      the gradient of the residual
 *     grad_x   = grad_sum · dropout factor
 *     grad_bias, grad_gamma, grad_beta = sums over tokens of grad_x, grad_out · s, grad_out
 *
 * All of it is bound by memory: each tensor is read or written once, in 16-byte pieces, and dropout is made
 * again rather than kept. A warp has one token; lane l has the features 8 (l + 32 v) to 8 (l + 32 v) + 7 for
 * v < VECTORS, all in registers. `sum` is kept as rounded for storage, and statistics are of the rounded
 * numbers, in two passes over registers. Widths are multiples of 8 up to 256 · MAX_VECTORS.
 */
#include "column_sums.h"
#include "dropout.h"

constexpr int WARPS = 4;
constexpr int MAX_VECTORS = 4;         /* more would not fit into registers, backward */
constexpr int FEATURES_A_VECTOR = 256; /* of the whole warp */

/* gamma null: no LayerNorm, and out, mean, rstd are not written. */
template <class T> struct Forward {
    T *out, *sum;
    float *mean, *rstd;
    const T *x, *bias, *residual, *gamma, *beta;
    float epsilon;
    Dropout dropout;
    int64_t num_tokens, width;
};

/* gamma null: no LayerNorm; then grad_sum is grad itself, and not written. dropout.threshold 0: no dropout;
 * then grad_x is grad_sum, and not written. part_sums [parts, 3, width]: of bias, gamma, beta. */
template <class T> struct Backward {
    T *grad_sum, *grad_x;
    float *part_sums;
    const T *grad, *sum;
    const float *mean, *rstd;
    const T *gamma;
    Dropout dropout;
    int64_t num_tokens, width, tokens_a_part;
};

__device__ __forceinline__ int64_t feature_of(int vector) {
    return vector * FEATURES_A_VECTOR + lane_of_thread() * 8;
}

template <class T, int VECTORS> __global__ void __launch_bounds__(32 * WARPS) add_norm(Forward<T> p) {
    int64_t token = (int64_t)blockIdx.x * WARPS + warp_of_thread();
    if (token >= p.num_tokens) return;
    const int64_t row = token * p.width;
    float sum[VECTORS][8];
    float total = 0;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int64_t feature = feature_of(v);
        if (feature >= p.width) continue;
        float x[8], bias[8], factor[8];
        load8(x, p.x + row + feature);
        load8(bias, p.bias + feature);
        load8(sum[v], p.residual + row + feature);
        if (p.dropout.threshold) dropout_factors(factor, p.dropout, token, (uint32_t)(feature / 8));
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float kept = (x[i] + bias[i]) * (p.dropout.threshold ? factor[i] : 1.0f);
            sum[v][i] = rounded<T>(sum[v][i] + kept);
            total += sum[v][i];
        }
        store8(p.sum + row + feature, sum[v]);
    }
    if (!p.gamma) return;

    const float mean = warp_sum(total) / p.width;
    float squares = 0;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        if (feature_of(v) >= p.width) continue;
#pragma unroll
        for (int i = 0; i < 8; i++) squares += (sum[v][i] - mean) * (sum[v][i] - mean);
    }
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / p.width + p.epsilon);
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int64_t feature = feature_of(v);
        if (feature >= p.width) continue;
        float gamma[8], beta[8];
        load8(gamma, p.gamma + feature);
        load8(beta, p.beta + feature);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[v][i] = (sum[v][i] - mean) * rstd * gamma[i] + beta[i];
        store8(p.out + row + feature, sum[v]);
    }
    if (lane_of_thread() == 0) {
        p.mean[token] = mean;
        p.rstd[token] = rstd;
    }
}

/* A block has one part of the tokens; its warps take them in turns and add their sums at the end. */
template <class T, int VECTORS> __global__ void __launch_bounds__(32 * WARPS, 2)
    add_norm_backward(Backward<T> p) {
    float bias_sums[VECTORS][8] = {}, gamma_sums[VECTORS][8] = {}, beta_sums[VECTORS][8] = {};
    const int64_t first = blockIdx.x * p.tokens_a_part;
    const int64_t end = first + p.tokens_a_part < p.num_tokens ? first + p.tokens_a_part : p.num_tokens;
    for (int64_t token = first + warp_of_thread(); token < end; token += WARPS) {
        const int64_t row = token * p.width;
        float grad[VECTORS][8], normal[VECTORS][8];
        float along_one = 0, along_normal = 0;
        const float mean = p.gamma ? p.mean[token] : 0, rstd = p.gamma ? p.rstd[token] : 0;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int64_t feature = feature_of(v);
            if (feature >= p.width) continue;
            load8(grad[v], p.grad + row + feature);
            if (!p.gamma) continue;
            float gamma[8];
            load8(gamma, p.gamma + feature);
            load8(normal[v], p.sum + row + feature);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                normal[v][i] = (normal[v][i] - mean) * rstd;
                gamma_sums[v][i] += grad[v][i] * normal[v][i];
                beta_sums[v][i] += grad[v][i];
                grad[v][i] *= gamma[i];
                along_one += grad[v][i];
                along_normal += grad[v][i] * normal[v][i];
            }
        }
        if (p.gamma) {
            along_one = warp_sum(along_one) / p.width;
            along_normal = warp_sum(along_normal) / p.width;
        }
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int64_t feature = feature_of(v);
            if (feature >= p.width) continue;
            if (p.gamma) {
#pragma unroll
                for (int i = 0; i < 8; i++)
                    grad[v][i] = (grad[v][i] - along_one - normal[v][i] * along_normal) * rstd;
                store8(p.grad_sum + row + feature, grad[v]);
            }
            if (p.dropout.threshold) {
                float factor[8];
                dropout_factors(factor, p.dropout, token, (uint32_t)(feature / 8));
#pragma unroll
                for (int i = 0; i < 8; i++) grad[v][i] *= factor[i];
                store8(p.grad_x + row + feature, grad[v]);
            }
#pragma unroll
            for (int i = 0; i < 8; i++) bias_sums[v][i] += grad[v][i];
        }
    }

    /* One of the three sums at a time, so that shared memory holds [WARPS, width]. */
    float *shared = shared_array<float>(0);
    float *part = p.part_sums + (int64_t)blockIdx.x * 3 * p.width;
    auto add_warps = [&](const float (&sums)[VECTORS][8], int which) {
        __syncthreads();
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            if (feature_of(v) < p.width) store8(shared + warp_of_thread() * p.width + feature_of(v), sums[v]);
        __syncthreads();
        for (int64_t i = threadIdx.x; i < p.width; i += 32 * WARPS) {
            float sum = 0;
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) sum += shared[warp * p.width + i];
            part[which * p.width + i] = sum;
        }
    };
    add_warps(bias_sums, 0);
    if (!p.gamma) return;
    add_warps(gamma_sums, 1);
    add_warps(beta_sums, 2);
}

/* Call function(std::integral_constant) with vectors enough for `width` features. */
template <class Function> static int with_vectors(int64_t width, Function function) {
    switch (divide_up(width, FEATURES_A_VECTOR)) {
    case 1: return function(std::integral_constant<int, 1>());
    case 2:
    case 3: return function(std::integral_constant<int, 3>());
    case 4: return function(std::integral_constant<int, 4>());
    }
    return INVALID_VALUE;
}

extern "C" int deltalm_add_norm(void *out, void *sum, float *mean, float *rstd, const void *x,
                                const void *bias, const void *residual, const void *gamma, const void *beta,
                                float epsilon, const Dropout *dropout, int64_t num_tokens, int64_t width,
                                int64_t dtype, void *stream) {
    if (width % 8 || width > FEATURES_A_VECTOR * MAX_VECTORS) return INVALID_VALUE;
    if (!num_tokens) return 0;
    return with_type(dtype, [&](auto number) {
        using T = decltype(number);
        return with_vectors(width, [&](auto vectors) {
            Forward<T> p = {(T *)out,
                            (T *)sum,
                            mean,
                            rstd,
                            (const T *)x,
                            (const T *)bias,
                            (const T *)residual,
                            (const T *)gamma,
                            (const T *)beta,
                            epsilon,
                            *dropout,
                            num_tokens,
                            width};
            return launch(add_norm<T, decltype(vectors)::value>, dim3((unsigned)divide_up(num_tokens, WARPS)),
                          dim3(32 * WARPS), 0, stream, p);
        });
    });
}

extern "C" int deltalm_add_norm_backward(void *grad_sum, void *grad_x, void *grad_bias, void *grad_gamma,
                                         void *grad_beta, float *part_sums, const void *grad, const void *sum,
                                         const float *mean, const float *rstd, const void *gamma,
                                         const Dropout *dropout, int64_t num_tokens, int64_t width,
                                         int64_t dtype, void *stream) {
    if (width % 8 || width > FEATURES_A_VECTOR * MAX_VECTORS) return INVALID_VALUE;
    const int64_t parts = num_parts(num_tokens);
    return with_type(dtype, [&](auto number) {
        using T = decltype(number);
        return with_vectors(width, [&](auto vectors) {
            Backward<T> p = {(T *)grad_sum,  (T *)grad_x, part_sums, (const T *)grad,
                             (const T *)sum, mean,        rstd,      (const T *)gamma,
                             *dropout,       num_tokens,  width,     tokens_a_part(num_tokens)};
            int error = 0;
            if (parts)
                error = launch(add_norm_backward<T, decltype(vectors)::value>, dim3((unsigned)parts),
                               dim3(32 * WARPS), WARPS * width * sizeof(float), stream, p);
            const Sums<T> sums = {{(T *)grad_bias, (T *)grad_gamma, (T *)grad_beta}, 3, width};
            if (!error) error = launch_add_parts(sums, part_sums, parts, stream);
            return error;
        });
    });
}
