/* exp for fp32 vectors: libm's is called one number at a time. */
#ifndef DELTALM_EXPONENTIAL_H
#define DELTALM_EXPONENTIAL_H

#include <stdint.h>
#include <string.h>

/* exp(x) for x <= 0, within two units in the last place; 0 below -87, NaN for NaN. */
static inline float exp_of(float x) {
    float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float shifted = x * 1.44269504f + magic;
    float exponent = shifted - magic;
    float rest = x - exponent * 0.693359375f + exponent * 2.12194440e-4f; /* ln 2 in two parts */
    float value = 1.9875691e-4f; /* polynomial of Cephes' expf */
    value = value * rest + 1.3981999e-3f;
    value = value * rest + 8.3334519e-3f;
    value = value * rest + 4.1665795e-2f;
    value = value * rest + 1.6666665e-1f;
    value = value * rest + 5.0000001e-1f;
    value = value * rest * rest + rest + 1.0f;
    uint32_t bits;
    float power;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127) << 23;
    memcpy(&power, &bits, 4);
    return x < -87.0f ? 0.0f : value * power;
}

#endif
