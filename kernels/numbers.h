/* fp32, bf16 and fp16 in memory, fp32 in registers; eight at a time in loads and stores of 16 bytes. */
#pragma once

#include "device.h"

#ifndef DELTALM_ON_CPU
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

enum Dtype : int64_t { FP32 = 0, BF16 = 1, FP16 = 2 };

constexpr int INVALID_VALUE = 1; /* cudaErrorInvalidValue */

struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

template <class To, class From> __device__ __forceinline__ To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) { return bits_as<float>((uint32_t)value.bits << 16); }

#ifdef DELTALM_ON_CPU
inline float to_float(fp16 value) { return (float)bits_as<_Float16>(value.bits); }
inline void from_float(bf16 &to, float value) {
    uint32_t bits = bits_as<uint32_t>(value);
    to.bits = value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline void from_float(fp16 &to, float value) { to.bits = bits_as<uint16_t>((_Float16)value); }
#else
__device__ __forceinline__ float to_float(fp16 value) { return __half2float(bits_as<__half>(value.bits)); }
__device__ __forceinline__ void from_float(bf16 &to, float value) {
    to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
__device__ __forceinline__ void from_float(fp16 &to, float value) {
    to.bits = __half_as_ushort(__float2half_rn(value));
}
#endif
__device__ __forceinline__ void from_float(float &to, float value) { to = value; }

/* 2 to the power of x, 0 for -inf; approximate on GPUs (PTX ISA, ex2.approx). */
__device__ __forceinline__ float power_of_2(float x) {
#ifdef DELTALM_ON_CPU
    return exp2f(x);
#else
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#endif
}

/* The value as it comes back from memory. */
template <class T> __device__ __forceinline__ float rounded(float value) {
    T stored;
    from_float(stored, value);
    return to_float(stored);
}

/* to[0..8) = from[0..8), which is aligned to 16 bytes. */
template <class T> __device__ __forceinline__ void load8(float (&to)[8], const T *from) {
    uint4 words[sizeof(T) / 2];
    T numbers[8];
#pragma unroll
    for (int i = 0; i < (int)sizeof(T) / 2; i++) words[i] = reinterpret_cast<const uint4 *>(from)[i];
    memcpy(numbers, words, sizeof words);
#pragma unroll
    for (int i = 0; i < 8; i++) to[i] = to_float(numbers[i]);
}

template <class T> __device__ __forceinline__ void store8(T *to, const float (&from)[8]) {
    uint4 words[sizeof(T) / 2];
    T numbers[8];
#pragma unroll
    for (int i = 0; i < 8; i++) from_float(numbers[i], from[i]);
    memcpy(words, numbers, sizeof words);
#pragma unroll
    for (int i = 0; i < (int)sizeof(T) / 2; i++) reinterpret_cast<uint4 *>(to)[i] = words[i];
}

/* Call function(T()) with the type that `dtype` names. */
template <class Function> int with_type(int64_t dtype, Function function) {
    switch (dtype) {
    case FP32: return function(float());
    case BF16: return function(bf16());
    case FP16: return function(fp16());
    }
    return INVALID_VALUE;
}
