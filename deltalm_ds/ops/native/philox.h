/* The dropout decisions of ../philox.py; see there for key, counter and layout. */
#ifndef DELTALM_PHILOX_H
#define DELTALM_PHILOX_H

#include <stdint.h>
#include <string.h>

#define ROUNDS 7
#define CALLS 16 /* computed together, one in each lane of a vector */
#define BLOCK (8 * CALLS)

struct dropout {
    uint32_t seed;
    uint32_t place; /* layer << 8 | site */
    uint32_t step;
    uint32_t threshold;
    float scale;
    const int64_t *sample_of_token;
    const int64_t *index_of_token;
};

/* Sixteen random bits for each of BLOCK features, from call number `call` on. */
static inline void random_block(const struct dropout *d, int64_t token, uint32_t call, uint16_t *bits) {
    uint64_t sample = (uint64_t)d->sample_of_token[token];
    uint32_t index = (uint32_t)d->index_of_token[token] | (uint32_t)(sample >> 32) << 16;
    /* In 64 bits each, which compilers turn into vector products better than 32 x 32 bits;
     * without the pragmas gcc unrolls the loops instead. */
    uint64_t c0[CALLS], c1[CALLS], c2[CALLS], c3[CALLS];
    uint32_t words[4 * CALLS], k0 = d->seed, k1 = d->place;
#pragma omp simd
    for (int j = 0; j < CALLS; j++) {
        c0[j] = d->step;
        c1[j] = (uint32_t)sample;
        c2[j] = index;
        c3[j] = call + (uint32_t)j;
    }
    for (int round = 0; round < ROUNDS; round++) {
#pragma omp simd
        for (int j = 0; j < CALLS; j++) {
            uint64_t low = 0xD2511F53u * c0[j], high = 0xCD9E8D57u * c2[j];
            c0[j] = high >> 32 ^ c1[j] ^ k0;
            c2[j] = low >> 32 ^ c3[j] ^ k1;
            c1[j] = (uint32_t)high;
            c3[j] = (uint32_t)low;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
#pragma omp simd
    for (int j = 0; j < CALLS; j++) {
        words[4 * j] = (uint32_t)c0[j];
        words[4 * j + 1] = (uint32_t)c1[j];
        words[4 * j + 2] = (uint32_t)c2[j];
        words[4 * j + 3] = (uint32_t)c3[j];
    }
    memcpy(bits, words, sizeof words); /* little-endian: the low half of a word comes first */
}

/* row[0 .. n) times 0 or scale, by the decisions of one token. */
static inline void drop_row(const struct dropout *d, int64_t token, float *restrict row, int64_t n) {
    int32_t threshold = (int32_t)d->threshold;
    float scale = d->scale;
    for (int64_t first = 0; first < n; first += BLOCK) {
        uint16_t bits[BLOCK];
        int64_t count = n - first < BLOCK ? n - first : BLOCK;
        random_block(d, token, (uint32_t)(first / 8), bits);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) row[first + i] *= (int32_t)bits[i] < threshold ? 0.0f : scale;
    }
}

#endif
