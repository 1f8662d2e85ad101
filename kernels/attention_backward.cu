/* Attention over packed sequences, backward. With p and log_sum of attention_forward.cu, and g the gradient
 * of out:
 *
 *     delta_i = g_i · out_i                ds_ij = p_ij · (g_i · v_j - delta_i)
 *     dv_j = Σ_i p_ij g_i                  dk_j = scale · Σ_i ds_ij q_i                dq_i = scale · Σ_j
 * ds_ij k_j
 *
 * p is computed again. One kernel sums over queries, a block for each tile of keys, and one over keys, a
 * block for each tile of queries: so nothing is added by several blocks, equal inputs give equal bits, and no
 * workspace but delta is needed. Both are the same program: a block keeps two tiles of `rows` (k and v, or q
 * and g) in registers and goes over two tiles of `columns` (q and g, or k and v) in shared memory. 16 columns
 * at a time, the scores stay in registers and become the left operand of the last products. Tiling:
 * attention.h.
 */
#include "attention.h"

template <class T> struct AttentionBackward {
    T *grad_query, *grad_key, *grad_value;
    const float *log_sums, *deltas; /* [heads, all queries] */
    const T *grad, *query, *key, *value;
    const int32_t *cumulative_lengths_q, *cumulative_lengths_k;
    int64_t num_heads, num_queries;
    float scale;
    bool causal;
};

/* deltas [heads, queries] from grad and out [queries, heads, HEAD_WIDTH]; eight threads have a query's head.
 */
template <class T> __global__ void __launch_bounds__(256)
    attention_deltas(float *deltas, const T *grad, const T *out, int64_t num_queries, int64_t num_heads) {
    const int64_t number = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / CHUNKS;
    const int chunk = threadIdx.x % CHUNKS;
    const bool inside = number < num_queries * num_heads;
    float sum = 0;
    if (inside) {
        float g[8], o[8];
        load8(g, grad + number * HEAD_WIDTH + chunk * 8);
        load8(o, out + number * HEAD_WIDTH + chunk * 8);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += g[i] * o[i];
    }
#pragma unroll
    for (int mask = CHUNKS / 2; mask; mask /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, mask);
    if (inside && chunk == 0) deltas[number % num_heads * num_queries + number / num_heads] = sum;
}

template <class T, bool ROWS_ARE_KEYS> __global__ void __launch_bounds__(THREADS)
    attention_backward(AttentionBackward<T> p) {
    const Sequence<const T> query = sequence_of(p.query, p.cumulative_lengths_q, p.num_heads);
    const Sequence<const T> grad = sequence_of(p.grad, p.cumulative_lengths_q, p.num_heads);
    const Sequence<const T> key = sequence_of(p.key, p.cumulative_lengths_k, p.num_heads);
    const Sequence<const T> value = sequence_of(p.value, p.cumulative_lengths_k, p.num_heads);
    const Sequence<const T> &row_source = ROWS_ARE_KEYS ? key : query,
                            &second_row_source = ROWS_ARE_KEYS ? value : grad;
    const Sequence<const T> &column_source = ROWS_ARE_KEYS ? query : key,
                            &second_column_source = ROWS_ARE_KEYS ? grad : value;
    const int first = blockIdx.x * TILE;
    if (first >= row_source.length) return;
    /* Of the columns to look at: keys see later queries only, queries earlier keys. */
    const int begin = p.causal && ROWS_ARE_KEYS ? first : 0;
    const int end = p.causal && !ROWS_ARE_KEYS && first + TILE < column_source.length ? first + TILE
                                                                                      : column_source.length;

    auto tile = [](int number) { return shared_array<T>(number * TILE_BYTES); };
    auto columns = [&](int turn) { return tile(2 + 2 * turn); };
    auto second_columns = [&](int turn) { return tile(3 + 2 * turn); };
    /* log_sum · log2 e and delta of each query of the tile at hand, on whichever side queries are. */
    float *log_sums = shared_array<float>(6 * TILE_BYTES), *deltas = log_sums + 2 * TILE;
    const int64_t first_query = blockIdx.y * p.num_queries + p.cumulative_lengths_q[blockIdx.z];
    auto fetch_sums = [&](int turn, int start) {
        if (threadIdx.x >= TILE) return;
        const bool inside = start + (int)threadIdx.x < query.length;
        const float log_sum = inside ? p.log_sums[first_query + start + threadIdx.x] : INFINITY;
        log_sums[turn * TILE + threadIdx.x] =
            log_sum == -INFINITY ? INFINITY : log_sum * LOG2_E; /* no keys: p is 0 */
        deltas[turn * TILE + threadIdx.x] = inside ? p.deltas[first_query + start + threadIdx.x] : 0;
    };

    fetch_tile(tile(0), row_source, first);
    fetch_tile(tile(1), second_row_source, first);
    fetch_tile(columns(0), column_source, begin);
    fetch_tile(second_columns(0), second_column_source, begin);
    close_group();
    fetch_sums(0, ROWS_ARE_KEYS ? begin : first);

    uint32_t rows[STEPS][4], second_rows[STEPS][4];
    float total[CHUNKS][4] = {}, second_total[CHUNKS][4] = {}; /* dk and dv, or dq alone */
    const float unit = p.scale * LOG2_E;
    /* This warp's rows with one tile; at an edge some pairs of query and key are not to be seen. */
    const int row = first + 16 * warp_of_thread();
    auto visit = [&](auto at_edge, int start, int turn) {
        constexpr bool AT_EDGE = decltype(at_edge)::value;
#pragma unroll
        for (int step = 0; step < TILE / 16; step++) {
            const int column = start + 16 * step;
            if (AT_EDGE && (column >= column_source.length ||
                            (p.causal && (ROWS_ARE_KEYS ? row >= column + 16 : column >= row + 16))))
                continue;
            float scores[2][4], slopes[2][4]; /* p, and ds */
            multiply_transposed(scores, rows, columns(turn), 16 * step);
            multiply_transposed(slopes, second_rows, second_columns(turn), 16 * step);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int in_row = row_of(i), in_column = column_of(half, i);
                    const int of_query =
                        ROWS_ARE_KEYS ? turn * TILE + 16 * step + in_column : 16 * warp_of_thread() + in_row;
                    float share = power_of_2(fmaf(scores[half][i], unit, -log_sums[of_query]));
                    if (AT_EDGE && (column + in_column >= column_source.length ||
                                    (p.causal && (ROWS_ARE_KEYS ? row + in_row > column + in_column
                                                                : column + in_column > row + in_row))))
                        share = 0;
                    scores[half][i] = share;
                    slopes[half][i] = share * (slopes[half][i] - deltas[of_query]);
                }
            uint32_t left[4];
            as_left_operand<T>(left, slopes);
            add_product(total, left, columns(turn), 16 * step);
            if (ROWS_ARE_KEYS) {
                as_left_operand<T>(left, scores);
                add_product(second_total, left, second_columns(turn), 16 * step);
            }
        }
    };

    for (int start = begin, turn = 0; start < end; start += TILE, turn ^= 1) {
        if (start + TILE < end) {
            fetch_tile(columns(turn ^ 1), column_source, start + TILE);
            fetch_tile(second_columns(turn ^ 1), second_column_source, start + TILE);
            if (ROWS_ARE_KEYS) fetch_sums(turn ^ 1, start + TILE);
        }
        close_group();
        wait_for_groups<1>();
        __syncthreads();
        if (start == begin) {
            load_rows(rows, tile(0));
            load_rows(second_rows, tile(1));
        }
        if (row < row_source.length) {
            const bool all_seen =
                !p.causal || (ROWS_ARE_KEYS ? row + 16 <= start + 1 : start + TILE <= row + 1);
            if (start + TILE <= column_source.length && all_seen)
                visit(std::false_type(), start, turn);
            else
                visit(std::true_type(), start, turn);
        }
        __syncthreads(); /* before the next turn overwrites what other warps still read */
    }

    wait_for_groups<0>();
    __syncthreads();
    const float scale[2] = {p.scale, p.scale}, one[2] = {1, 1};
    const int32_t *cumulative_lengths = ROWS_ARE_KEYS ? p.cumulative_lengths_k : p.cumulative_lengths_q;
    write_rows(sequence_of(ROWS_ARE_KEYS ? p.grad_key : p.grad_query, cumulative_lengths, p.num_heads), first,
               tile(0), total, scale);
    if (ROWS_ARE_KEYS)
        write_rows(sequence_of(p.grad_value, cumulative_lengths, p.num_heads), first, tile(1), second_total,
                   one);
}

extern "C" int deltalm_attention_backward(void *grad_query, void *grad_key, void *grad_value, float *deltas,
                                          const void *grad, const void *query, const void *key,
                                          const void *value, const void *out, const float *log_sums,
                                          const int32_t *cumulative_lengths_q,
                                          const int32_t *cumulative_lengths_k, int64_t num_sequences,
                                          int64_t num_queries, int64_t max_length_q, int64_t max_length_k,
                                          int64_t num_heads, float scale, int64_t causal, int64_t dtype,
                                          void *stream) {
    if (!num_sequences) return 0;
    return with_half_type(dtype, [&](auto number) {
        using T = decltype(number);
        AttentionBackward<T> p = {(T *)grad_query,
                                  (T *)grad_key,
                                  (T *)grad_value,
                                  log_sums,
                                  deltas,
                                  (const T *)grad,
                                  (const T *)query,
                                  (const T *)key,
                                  (const T *)value,
                                  cumulative_lengths_q,
                                  cumulative_lengths_k,
                                  num_heads,
                                  num_queries,
                                  scale,
                                  causal != 0};
        const size_t shared_bytes = 6 * TILE_BYTES + 4 * TILE * sizeof(float);
        int error = 0;
        if (num_queries)
            error =
                launch(attention_deltas<T>, dim3((unsigned)divide_up(num_queries * num_heads * CHUNKS, 256)),
                       dim3(256), 0, stream, deltas, (const T *)grad, (const T *)out, num_queries, num_heads);
        if (!error && max_length_k)
            error = launch(
                attention_backward<T, true>,
                dim3((unsigned)divide_up(max_length_k, TILE), (unsigned)num_heads, (unsigned)num_sequences),
                dim3(THREADS), shared_bytes, stream, p);
        if (!error && max_length_q)
            error = launch(
                attention_backward<T, false>,
                dim3((unsigned)divide_up(max_length_q, TILE), (unsigned)num_heads, (unsigned)num_sequences),
                dim3(THREADS), shared_bytes, stream, p);
        return error;
    });
}
