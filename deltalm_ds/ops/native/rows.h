/* Rows of tensors in fp32 or bf16, read into and written from fp32. */
#ifndef DELTALM_ROWS_H
#define DELTALM_ROWS_H

#include <stdint.h>
#include <string.h>

enum dtype { FP32 = 0, BF16 = 1 };

/* Sums over tokens are taken in parts of this many tokens, then over the parts, so that the number of threads
 * changes no bit of them. The callers' workspaces hold one row a part.
 */
#define TOKENS_A_PART 64

static inline int64_t parts_of(int64_t tokens) { return (tokens + TOKENS_A_PART - 1) / TOKENS_A_PART; }

static inline size_t bytes_of(int64_t dtype) { return dtype == BF16 ? 2 : 4; }

static inline void *row_of(const void *base, int64_t row, int64_t n, int64_t dtype) {
    return (char *)base + row * n * (int64_t)bytes_of(dtype);
}

static inline float from_bf16(uint16_t half) {
    uint32_t word = (uint32_t)half << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

/* Round to nearest even, NaN to NaN. */
static inline uint16_t to_bf16(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    uint32_t rounded = (word + 0x7fff + (word >> 16 & 1)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0 : rounded);
}

static inline void load(float *restrict to, const void *restrict from, int64_t n, int64_t dtype) {
    if (dtype == FP32) {
        memcpy(to, from, n * sizeof(float));
        return;
    }
    const uint16_t *restrict halves = from;
    for (int64_t i = 0; i < n; i++) to[i] = from_bf16(halves[i]);
}

static inline void store(void *restrict to, const float *restrict from, int64_t n, int64_t dtype) {
    if (dtype == FP32) {
        memcpy(to, from, n * sizeof(float));
        return;
    }
    uint16_t *restrict halves = to;
    for (int64_t i = 0; i < n; i++) halves[i] = to_bf16(from[i]);
}

#endif
