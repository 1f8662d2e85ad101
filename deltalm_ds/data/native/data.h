/* What Python calls; library.py declares the same there. Memory is the caller's, all of it. A table is rows of n
 * numbers one after the other. */
#ifndef DELTALM_DATA_H
#define DELTALM_DATA_H

#include <stdint.h>

void numbered_keys(uint64_t *table, int64_t n);
int64_t permute(int64_t *table, int64_t n);

int64_t read_items(int64_t *table, int64_t n, int32_t *out);
void join(const int32_t *tokens, const int64_t *places, int64_t n, int64_t start, int64_t end, int64_t *source,
          int64_t *decoder_input, int64_t *labels);

void least(const uint64_t *words, int64_t n, int64_t size, int64_t *places, uint64_t *scratch);
void corrupt(const int32_t *tokens, const int64_t *table, int64_t n, uint64_t stream, int64_t first_sentinel,
             int64_t is_t5, uint64_t *words, int64_t *places, int32_t *source, int32_t *target);

#endif
