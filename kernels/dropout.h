/* The dropout decisions of deltalm_ds/ops/philox.py, bit for bit; see there for key, counter and layout. */
#pragma once

#include "device.h"

struct Dropout {
    uint32_t seed;
    uint32_t place; /* layer << 8 | site */
    uint32_t step;
    uint32_t threshold; /* of 65,536; 0: no dropout, and nothing below is read */
    float scale;        /* of what is kept */
    const int64_t *sample_of_token;
    const int64_t *index_of_token;
};

/* factor[i] is 0 or `scale` for features 8 · call + i of a token. */
__device__ __forceinline__ void dropout_factors(float (&factor)[8], const Dropout &dropout, int64_t token,
                                                uint32_t call) {
    constexpr int ROUNDS = 7;
    uint64_t sample = (uint64_t)dropout.sample_of_token[token];
    uint32_t c0 = dropout.step, c1 = (uint32_t)sample, c3 = call;
    uint32_t c2 = (uint32_t)dropout.index_of_token[token] | (uint32_t)(sample >> 32) << 16;
    uint32_t k0 = dropout.seed, k1 = dropout.place;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t low = (uint64_t)0xD2511F53u * c0, high = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(high >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(low >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)high;
        c3 = (uint32_t)low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint32_t words[4] = {c0, c1, c2, c3};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint32_t bits = words[i / 2] >> 16 * (i % 2) & 0xffff;
        factor[i] = bits < dropout.threshold ? 0.0f : dropout.scale;
    }
}
