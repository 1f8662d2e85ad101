/* Dropout alone, and its decisions as a mask. */
#include "philox.h"
#include "rows.h"

/* mask [tokens, groups, n]: 1 where a feature survives. Group g is decided by the calls from g * group_calls. */
void deltalm_keep_mask(uint8_t *mask, const struct dropout *d, int64_t tokens, int64_t groups,
                       int64_t group_calls, int64_t n, int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t token = 0; token < tokens; token++) {
        for (int64_t group = 0; group < groups; group++) {
            uint8_t *row = mask + (token * groups + group) * n;
            for (int64_t first = 0; first < n; first += BLOCK) {
                uint16_t bits[BLOCK];
                int64_t count = n - first < BLOCK ? n - first : BLOCK;
                random_block(d, token, (uint32_t)(group * group_calls + first / 8), bits);
                for (int64_t i = 0; i < count; i++) row[first + i] = bits[i] >= d->threshold;
            }
        }
    }
}

/* out = dropout(x); x and out [tokens, n]. Its own gradient. */
void deltalm_dropout(void *out, const void *x, const struct dropout *d, int64_t tokens, int64_t n, int64_t dtype,
                     int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t token = 0; token < tokens; token++) {
        float row[n];
        load(row, row_of(x, token, n, dtype), n, dtype);
        drop_row(d, token, row, n);
        store(row_of(out, token, n, dtype), row, n, dtype);
    }
}
