/* Softmax, cross-entropy and its gradient over a chunk of logits, as the loss over a large vocabulary needs
 * them.
 *
 * The chunk's logits z [tokens, classes] come from torch's matrix product, and their gradient, which takes
 * their place, goes into two more. With y the label, lse = log Σ exp z, and V classes:
 *
 *     nll       = lse - z_y
 *     loss      = on_target · nll + on_all · (V · lse - Σ z)        on_target + V · on_all = 1
 *     grad z_j  = exp(z_j - lse) - on_all - on_target · [j = y]
 *
 * Bound by memory: a block has a token, reads its row once for the sums, kept relative to a running maximum,
 * and once more to write the gradient. Classes are a multiple of 8, labels are within them.
 */
#include "numbers.h"

constexpr int THREADS = 512;
constexpr int WARPS = THREADS / 32;

/* What a thread, a warp or a block knows of a row so far. */
struct Sums {
    float highest;
    float exponentials; /* the sum of exp(z - highest) */
    float logits;       /* the sum of z */
};

__device__ __forceinline__ Sums combined(const Sums &a, const Sums &b) {
    Sums both;
    both.highest = fmaxf(a.highest, b.highest);
    both.exponentials = both.highest == -INFINITY ? 0.0f
                                                  : a.exponentials * expf(a.highest - both.highest) +
                                                        b.exponentials * expf(b.highest - both.highest);
    both.logits = a.logits + b.logits;
    return both;
}

__device__ __forceinline__ Sums other_lane(const Sums &sums, int mask) {
    return {__shfl_xor_sync(ALL_LANES, sums.highest, mask),
            __shfl_xor_sync(ALL_LANES, sums.exponentials, mask),
            __shfl_xor_sync(ALL_LANES, sums.logits, mask)};
}

/* The block's sums, on every thread. A lower lane comes first in every sum, so that all lanes have the same
 * bits. */
__device__ __forceinline__ Sums block_sums(Sums sums) {
    auto over_warp = [](Sums value) {
#pragma unroll
        for (int mask = 16; mask; mask /= 2) {
            Sums other = other_lane(value, mask);
            value = lane_of_thread() & mask ? combined(other, value) : combined(value, other);
        }
        return value;
    };
    Sums *of_warps = shared_array<Sums>(0);
    sums = over_warp(sums);
    if (lane_of_thread() == 0) of_warps[warp_of_thread()] = sums;
    __syncthreads();
    const Sums nothing = {-INFINITY, 0.0f, 0.0f};
    return over_warp(lane_of_thread() < WARPS ? of_warps[lane_of_thread()] : nothing);
}

template <class T> struct CrossEntropy {
    T *logits; /* become the gradient if with_gradient */
    float *nll, *loss;
    const int64_t *labels;
    float on_target, on_all;
    int64_t num_classes;
    bool with_gradient;
};

template <class T> __global__ void __launch_bounds__(THREADS) cross_entropy(CrossEntropy<T> p) {
    const int64_t token = blockIdx.x;
    T *row = p.logits + token * p.num_classes;
    const int64_t label = p.labels[token];
    const float label_logit = to_float(row[label]); /* before any thread writes a gradient */

    Sums sums = {-INFINITY, 0.0f, 0.0f};
    for (int64_t first = threadIdx.x * 8; first < p.num_classes; first += THREADS * 8) {
        float z[8];
        load8(z, row + first);
        Sums eight = {z[0], 0.0f, 0.0f};
#pragma unroll
        for (int i = 1; i < 8; i++) eight.highest = fmaxf(eight.highest, z[i]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            eight.exponentials += expf(z[i] - eight.highest);
            eight.logits += z[i];
        }
        sums = combined(sums, eight);
    }
    sums = block_sums(sums);
    const float log_sum = sums.highest + logf(sums.exponentials);
    if (threadIdx.x == 0) {
        const float nll = log_sum - label_logit;
        p.nll[token] = nll;
        p.loss[token] = p.on_target * nll + p.on_all * (p.num_classes * log_sum - sums.logits);
    }
    if (!p.with_gradient) return;
    for (int64_t first = threadIdx.x * 8; first < p.num_classes; first += THREADS * 8) {
        float z[8];
        load8(z, row + first);
#pragma unroll
        for (int i = 0; i < 8; i++)
            z[i] = expf(z[i] - log_sum) - p.on_all - (first + i == label ? p.on_target : 0.0f);
        store8(row + first, z);
    }
}

extern "C" int deltalm_cross_entropy(void *logits, float *nll, float *loss, const int64_t *labels,
                                     float on_target, float on_all, int64_t num_tokens, int64_t num_classes,
                                     int64_t with_gradient, int64_t dtype, void *stream) {
    if (num_classes % 8) return INVALID_VALUE;
    if (!num_tokens) return 0;
    return with_type(dtype, [&](auto number) {
        using T = decltype(number);
        CrossEntropy<T> p = {(T *)logits, nll,    loss,        labels,
                             on_target,   on_all, num_classes, with_gradient != 0};
        return launch(cross_entropy<T>, dim3((unsigned)num_tokens), dim3(THREADS), WARPS * sizeof(Sums),
                      stream, p);
    });
}
