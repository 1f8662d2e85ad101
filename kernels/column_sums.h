/* Sums over tokens, as gradients of biases and of LayerNorm's gain need them, in an order that never changes.
 *
 * Tokens are cut into parts, at most MAX_PARTS whatever the GPU. A block sums its part, then one more kernel
 * adds the parts' sums, one after the other. So no atomics are needed, and equal inputs give equal bits on
 * every GPU.
 */
#pragma once

#include "numbers.h"

constexpr int64_t MAX_PARTS = 512; /* also in ops/cuda, which allocates the workspace */
constexpr int64_t LEAST_TOKENS_A_PART = 16;

inline int64_t tokens_a_part(int64_t num_tokens) {
    int64_t tokens = divide_up(num_tokens, MAX_PARTS);
    return tokens > LEAST_TOKENS_A_PART ? tokens : LEAST_TOKENS_A_PART;
}

inline int64_t num_parts(int64_t num_tokens) { return divide_up(num_tokens, tokens_a_part(num_tokens)); }

/* What the sums of one row of part_sums become: `num_sums` vectors of `width` numbers, null where unwanted.
 */
constexpr int MAX_SUMS = 3;
template <class T> struct Sums {
    T *out[MAX_SUMS];
    int64_t num_sums, width;
};

constexpr int SUM_COLUMNS = 32, SUM_WARPS = 8;

/* Adds up part_sums [num_parts, num_sums, width] over the parts. A block has SUM_COLUMNS columns; each of its
 * warps adds every SUM_WARPS-th part, and the warps' sums are added in their order. */
template <class T> __global__ void __launch_bounds__(SUM_COLUMNS *SUM_WARPS)
    add_parts(Sums<T> sums, const float *part_sums, int64_t num_parts) {
    const int64_t row_length = sums.num_sums * sums.width;
    const int64_t column = (int64_t)blockIdx.x * SUM_COLUMNS + lane_of_thread();
    float sum = 0;
    if (column < row_length)
        for (int64_t part = warp_of_thread(); part < num_parts; part += SUM_WARPS)
            sum += part_sums[part * row_length + column];
    float *shared = shared_array<float>(0);
    shared[threadIdx.x] = sum;
    __syncthreads();
    if (warp_of_thread() || column >= row_length) return;
    for (int warp = 1; warp < SUM_WARPS; warp++) sum += shared[warp * SUM_COLUMNS + lane_of_thread()];
    const int64_t which = column / sums.width;
    /* Indexed by a variable, the array would lie in local memory. */
    T *out = which == 0 ? sums.out[0] : which == 1 ? sums.out[1] : sums.out[2];
    if (out) from_float(out[column % sums.width], sum);
}

template <class T>
int launch_add_parts(const Sums<T> &sums, const float *part_sums, int64_t num_parts, void *stream) {
    const int64_t blocks = divide_up(sums.num_sums * sums.width, SUM_COLUMNS);
    return launch(add_parts<T>, dim3((unsigned)blocks), dim3(SUM_COLUMNS * SUM_WARPS),
                  SUM_COLUMNS * SUM_WARPS * sizeof(float), stream, sums, part_sums, num_parts);
}
