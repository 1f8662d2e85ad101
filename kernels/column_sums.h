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

/* out[i] = the sum over parts of part_sums [num_parts, row_length] at [first_column + i], for i < width. */
template <class T> __global__ void __launch_bounds__(256)
    add_parts(T *out, const float *part_sums, int64_t num_parts, int64_t row_length, int64_t first_column,
              int64_t width) {
    int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0;
    for (int64_t part = 0; part < num_parts; part++)
        sum += part_sums[part * row_length + first_column + column];
    from_float(out[column], sum);
}

/* out may be null: that sum is not wanted. */
template <class T> int launch_add_parts(void *out, const float *part_sums, int64_t parts, int64_t row_length,
                                        int64_t first_column, int64_t width, void *stream) {
    if (!out) return 0;
    return launch(add_parts<T>, dim3((unsigned)divide_up(width, 256)), dim3(256), 0, stream, (T *)out,
                  part_sums, parts, row_length, first_column, width);
}
