/* What the forward and the backward pass of attention over packed sequences share.
 *
 * Sequence i has the queries q[cq[i] .. cq[i + 1]) and the keys and values at ck likewise; nothing is padded.
 * A block has TILE rows (queries, or keys) of one head of one sequence; each of its warps has 16 of them, as
 * the rows of products on the matrix units. It goes over the other side in tiles of TILE, which shared memory
 * holds twice, so that the next one is on its way while one is used. Tiles lie there in rows of 64 numbers
 * whose eight 16-byte chunks are permuted by the row's number: then neither stores nor ldmatrix meet in one
 * bank.
 */
#pragma once

#include "matrix.h"

constexpr int HEAD_WIDTH = 64;
constexpr int TILE = 64;
constexpr int WARPS = TILE / 16;
constexpr int THREADS = 32 * WARPS;
constexpr int CHUNKS = HEAD_WIDTH / 8; /* of 16 bytes in a row */
constexpr int STEPS = HEAD_WIDTH / 16; /* of a product over features */
constexpr int TILE_NUMBERS = TILE * HEAD_WIDTH;
constexpr int64_t TILE_BYTES = TILE_NUMBERS * 2;
constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ int place_of(int row, int chunk) {
    return row * HEAD_WIDTH + (chunk ^ (row & 7)) * 8;
}

/* One head of one sequence in a packed tensor [tokens, heads, HEAD_WIDTH]. */
template <class T> struct Sequence {
    T *start;
    int64_t stride; /* from token to token */
    int length;
};

template <class T> __device__ __forceinline__ Sequence<T>
sequence_of(T *packed, const int32_t *cumulative_lengths, int64_t num_heads) {
    const int64_t first = cumulative_lengths[blockIdx.z], end = cumulative_lengths[blockIdx.z + 1];
    return {packed + (first * num_heads + blockIdx.y) * HEAD_WIDTH, num_heads * HEAD_WIDTH,
            (int)(end - first)};
}

/* Begin to copy rows first .. first + TILE of a sequence into shared memory; those beyond its end become
 * zeros. */
template <class T>
__device__ __forceinline__ void fetch_tile(T *tile, const Sequence<const T> &from, int first) {
#pragma unroll
    for (int i = threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        const bool inside = first + row < from.length;
        const int64_t offset = inside ? (first + row) * from.stride + chunk * 8 : 0;
        copy16(tile + place_of(row, chunk), from.start + offset, inside);
    }
}

/* The left operand of products over features: this warp's 16 rows of a tile. */
template <class T> __device__ __forceinline__ void load_rows(uint32_t (&rows)[STEPS][4], const T *tile) {
    const int lane = lane_of_thread();
#pragma unroll
    for (int step = 0; step < STEPS; step++)
        load_tiles(rows[step], tile + place_of(warp_of_thread() * 16 + lane % 16, 2 * step + lane / 16));
}

/* product [16 rows, 16 columns] = rows · (16 rows of `tile` from `first` on)ᵀ, over features. */
template <class T> __device__ __forceinline__ void
multiply_transposed(float (&product)[2][4], const uint32_t (&rows)[STEPS][4], const T *tile, int first) {
    const int lane = lane_of_thread();
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < 4; i++) product[half][i] = 0;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        uint32_t tiles[4];
        load_tiles(tiles, tile + place_of(first + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
        multiply_add<T>(product[0], rows[step], {tiles[0], tiles[1]});
        multiply_add<T>(product[1], rows[step], {tiles[2], tiles[3]});
    }
}

/* total [16 rows, HEAD_WIDTH] += left [16 rows, 16] · (16 rows of `tile` from `first` on). */
template <class T> __device__ __forceinline__ void
add_product(float (&total)[CHUNKS][4], const uint32_t (&left)[4], const T *tile, int first) {
    const int lane = lane_of_thread();
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk += 2) {
        uint32_t tiles[4];
        load_tiles_transposed(tiles, tile + place_of(first + lane % 8 + lane / 8 % 2 * 8, chunk + lane / 16));
        multiply_add<T>(total[chunk], left, {tiles[0], tiles[1]});
        multiply_add<T>(total[chunk + 1], left, {tiles[2], tiles[3]});
    }
}

/* A product's result as the left operand of the next one, rounded to T. */
template <class T>
__device__ __forceinline__ void as_left_operand(uint32_t (&left)[4], const float (&product)[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        left[i] = pair_of<T>(product[i / 2][i % 2 * 2], product[i / 2][i % 2 * 2 + 1]);
}

/* Row (of the warp's 16) and column (of 16) of element i in half `half` of a product. */
__device__ __forceinline__ int row_of(int i) { return lane_of_thread() / 4 + i / 2 * 8; }
__device__ __forceinline__ int column_of(int half, int i) {
    return half * 8 + lane_of_thread() % 4 * 2 + i % 2;
}

/* Write this warp's rows · factor into rows `first` + 16 · warp … of a sequence, by way of its part of a
 * tile. */
template <class T> __device__ __forceinline__ void write_rows(const Sequence<T> &to, int first, T *tile,
                                                              const float (&total)[CHUNKS][4],
                                                              const float (&factor)[2]) {
    const int warp_row = warp_of_thread() * 16;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            T *pair = tile + place_of(warp_row + row_of(i), chunk) + lane_of_thread() % 4 * 2;
            *reinterpret_cast<uint32_t *>(pair) =
                pair_of<T>(total[chunk][i] * factor[i / 2], total[chunk][i + 1] * factor[i / 2]);
        }
    __syncwarp();
#pragma unroll
    for (int i = lane_of_thread(); i < 16 * CHUNKS; i += 32) {
        const int row = warp_row + i / CHUNKS, chunk = i % CHUNKS;
        if (first + row < to.length)
            *reinterpret_cast<uint4 *>(to.start + (first + row) * to.stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(tile + place_of(row, chunk));
    }
}

/* Call function(T()) for the two types of the matrix units. */
template <class Function> int with_half_type(int64_t dtype, Function function) {
    if (dtype == BF16) return function(bf16());
    if (dtype == FP16) return function(fp16());
    return INVALID_VALUE;
}
