/* The keyed permutations of ../permutation.py; see there for the construction. */
#include "data.h"

#include <math.h>

#define ROUNDS 24
#define GOLDEN 0x9E3779B97F4A7C15u

static inline uint64_t mix(uint64_t word) {
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return word ^ word >> 31;
}

/* Of two numbers below the modulus, which is below 2^62. */
static inline uint64_t sum_modulo(uint64_t a, uint64_t b, uint64_t modulus) {
    uint64_t sum = a + b;
    return sum < modulus ? sum : sum - modulus;
}

/* Table: key of the family, number, and the result. */
void numbered_keys(uint64_t *table, int64_t n) {
    const uint64_t *family = table, *number = table + n;
    uint64_t *key = table + 2 * n;
    for (int64_t i = 0; i < n; i++) key[i] = mix(family[i] + mix(number[i] + GOLDEN));
}

/* Table: index, size, key, and the result. Returns whether every size lies in 1 .. 2^62 and every index below
 * its size; else the results are not complete. */
int64_t permute(int64_t *table, int64_t n) {
    const int64_t *index = table, *size = table + n;
    const uint64_t *key = (const uint64_t *)table + 2 * n;
    int64_t *image = table + 3 * n;
    for (int64_t i = 0; i < n; i++) {
        if (size[i] < 1 || size[i] > INT64_C(1) << 62 || index[i] < 0 || index[i] >= size[i]) return 0;
        uint64_t left_size = 2 * (uint64_t)ceil(sqrt((double)size[i]) / 2);
        uint64_t right_size = ((uint64_t)size[i] + left_size - 1) / left_size;
        uint64_t round_keys[ROUNDS], place = (uint64_t)index[i];
        for (uint64_t round = 0; round < ROUNDS; round++) round_keys[round] = mix(key[i] + (round + 1) * GOLDEN);
        do {
            uint64_t left = place % left_size, right = place / left_size;
            for (int round = 0; round < ROUNDS; round += 2) {
                left = sum_modulo(left, mix(right + round_keys[round]) % left_size, left_size);
                right = sum_modulo(right, mix(left + round_keys[round + 1]) % right_size, right_size);
            }
            place = right * left_size + left;
        } while (place >= (uint64_t)size[i]);
        image[i] = (int64_t)place;
    }
    return 1;
}
