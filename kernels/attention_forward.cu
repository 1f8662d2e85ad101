/* Attention over packed sequences, forward (Dao, FlashAttention-2, 2023: one pass, the softmax renormalised).
 *
 *     out_i = Σ_j p_ij v_j,    p_ij = exp(scale · q_i · k_j - log_sum_i),    log_sum_i = log Σ_j exp(scale ·
 * q_i · k_j)
 *
 * over the keys j of query i's sequence, with `causal` only those with j <= i. A query without keys gets
 * zeros, and -inf as log_sum. Tiling: attention.h; a block has TILE queries and goes over tiles of keys and
 * values. exp(scale · s) is taken as 2 to the power of unit · s. All sums are fp32; p is rounded to the
 * inputs' type for its product.
 */
#include "attention.h"

template <class T> struct Attention {
    T *out;
    float *log_sums; /* [heads, all queries] */
    const T *query, *key, *value;
    const int32_t *cumulative_lengths_q, *cumulative_lengths_k;
    int64_t num_heads, num_queries;
    float scale;
    bool causal;
};

template <class T> __global__ void __launch_bounds__(THREADS) attention(Attention<T> p) {
    const Sequence<const T> query = sequence_of(p.query, p.cumulative_lengths_q, p.num_heads);
    const Sequence<const T> key = sequence_of(p.key, p.cumulative_lengths_k, p.num_heads);
    const Sequence<const T> value = sequence_of(p.value, p.cumulative_lengths_k, p.num_heads);
    const int first = blockIdx.x * TILE;
    if (first >= query.length) return;
    const int end =
        p.causal && first + TILE < key.length ? first + TILE : key.length; /* of the keys to look at */

    T *queries = shared_array<T>(0);
    auto keys = [](int which) { return shared_array<T>((1 + 2 * which) * TILE_BYTES); };
    auto values = [](int which) { return shared_array<T>((2 + 2 * which) * TILE_BYTES); };
    fetch_tile(queries, query, first);
    fetch_tile(keys(0), key, 0);
    fetch_tile(values(0), value, 0);
    close_group();

    uint32_t rows[STEPS][4];
    float total[CHUNKS][4] = {};
    float highest[2] = {-INFINITY, -INFINITY}, sums[2] = {0, 0};
    const float unit = p.scale * LOG2_E;
    /* Scores, softmax and product of this warp's rows with one tile; at an edge some columns are not to be
     * seen. */
    const int row = first + 16 * warp_of_thread();
    auto visit = [&](auto at_edge, int start, int turn) {
        constexpr bool AT_EDGE = decltype(at_edge)::value;
        const int seen = p.causal && row + 16 < key.length ? row + 16 : key.length; /* by any of the rows */
        float scores[TILE / 16][2][4];
        float above[2] = {highest[0], highest[1]};
#pragma unroll
        for (int step = 0; step < TILE / 16; step++) {
            if (AT_EDGE && start + 16 * step >= seen) break;
            multiply_transposed(scores[step], rows, keys(turn), 16 * step);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int column = start + 16 * step + column_of(half, i);
                    float &score = scores[step][half][i];
                    if (AT_EDGE && (column >= key.length || (p.causal && column > row + row_of(i))))
                        score = -INFINITY;
                    above[i / 2] = fmaxf(above[i / 2], score);
                }
        }
        float shift[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            above[r] = fmaxf(above[r], __shfl_xor_sync(ALL_LANES, above[r], 1));
            above[r] = fmaxf(above[r], __shfl_xor_sync(ALL_LANES, above[r], 2));
            shift[r] = above[r] == -INFINITY ? 0.0f : above[r] * unit; /* no key yet: avoid inf - inf */
            const float fading = power_of_2(fmaf(highest[r], unit, -shift[r]));
            highest[r] = above[r];
            sums[r] *= fading;
#pragma unroll
            for (int chunk = 0; chunk < CHUNKS; chunk++) {
                total[chunk][2 * r] *= fading;
                total[chunk][2 * r + 1] *= fading;
            }
        }
#pragma unroll
        for (int step = 0; step < TILE / 16; step++) {
            if (AT_EDGE && start + 16 * step >= seen) break;
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float &score = scores[step][half][i];
                    score = power_of_2(fmaf(score, unit, -shift[i / 2]));
                    sums[i / 2] += score;
                }
            uint32_t left[4];
            as_left_operand<T>(left, scores[step]);
            add_product(total, left, values(turn), 16 * step);
        }
    };

    for (int start = 0, turn = 0; start < end; start += TILE, turn ^= 1) {
        if (start + TILE < end) {
            fetch_tile(keys(turn ^ 1), key, start + TILE);
            fetch_tile(values(turn ^ 1), value, start + TILE);
        }
        close_group();
        wait_for_groups<1>();
        __syncthreads();
        if (start == 0) load_rows(rows, queries);
        if (row < query.length) {
            if (start + TILE <= key.length && (!p.causal || start + TILE <= row + 1))
                visit(std::false_type(), start, turn);
            else
                visit(std::true_type(), start, turn);
        }
        __syncthreads(); /* before the next turn overwrites what other warps still read */
    }

    wait_for_groups<0>();
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sums[r] += __shfl_xor_sync(ALL_LANES, sums[r], 1);
        sums[r] += __shfl_xor_sync(ALL_LANES, sums[r], 2);
        factor[r] = sums[r] > 0 ? 1 / sums[r] : 0;
        const int of_lane = row + row_of(2 * r);
        if (lane_of_thread() % 4 == 0 && of_lane < query.length)
            p.log_sums[blockIdx.y * p.num_queries + p.cumulative_lengths_q[blockIdx.z] + of_lane] =
                sums[r] > 0 ? highest[r] * p.scale + logf(sums[r]) : -INFINITY;
    }
    const Sequence<T> out = sequence_of(p.out, p.cumulative_lengths_q, p.num_heads);
    __syncthreads();
    write_rows(out, first, queries, total, factor);
}

extern "C" int deltalm_attention(void *out, float *log_sums, const void *query, const void *key,
                                 const void *value, const int32_t *cumulative_lengths_q,
                                 const int32_t *cumulative_lengths_k, int64_t num_sequences,
                                 int64_t num_queries, int64_t max_length_q, int64_t num_heads, float scale,
                                 int64_t causal, int64_t dtype, void *stream) {
    if (!num_sequences || !max_length_q) return 0;
    return with_half_type(dtype, [&](auto number) {
        using T = decltype(number);
        Attention<T> p = {(T *)out,
                          log_sums,
                          (const T *)query,
                          (const T *)key,
                          (const T *)value,
                          cumulative_lengths_q,
                          cumulative_lengths_k,
                          num_heads,
                          num_queries,
                          scale,
                          causal != 0};
        dim3 grid((unsigned)divide_up(max_length_q, TILE), (unsigned)num_heads, (unsigned)num_sequences);
        return launch(attention<T>, grid, dim3(THREADS), 5 * TILE_BYTES, stream, p);
    });
}
