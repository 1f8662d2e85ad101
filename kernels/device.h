/* What all kernels are written in.
 *
 * nvcc compiles them for GPUs. With -DDELTALM_ON_CPU any C++ compiler makes the same sources run on a CPU,
 * for tests (on_cpu/threads.h). No header of torch is used: the library's functions are plain C, take
 * pointers, 64-bit sizes and a stream, and return 0 or a CUDA error code.
 */
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef DELTALM_ON_CPU
#include "on_cpu/threads.h"
#else
#include <cuda_runtime.h>

extern __shared__ __align__(128) unsigned char shared_memory[];

/* Dynamic shared memory, aligned to 128 bytes, from an offset in bytes on. */
template <class T> __device__ __forceinline__ T *shared_array(size_t offset) {
    return reinterpret_cast<T *>(shared_memory + offset);
}

template <class... Parameters, class... Arguments> int launch(void (*kernel)(Parameters...), dim3 grid,
                                                              dim3 size, size_t shared_bytes, void *stream,
                                                              Arguments... arguments) {
    constexpr size_t WITHOUT_ASKING = 48 << 10;
    if (shared_bytes > WITHOUT_ASKING) {
        cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        if (error != cudaSuccess) return (int)error;
    }
    kernel<<<grid, size, shared_bytes, (cudaStream_t)stream>>>(arguments...);
    return (int)cudaGetLastError();
}
#endif

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ int lane_of_thread() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_of_thread() { return threadIdx.x / 32; }

/* The sum over the warp's lanes, the same bits on every lane. */
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) value += __shfl_xor_sync(ALL_LANES, value, mask);
    return value;
}

inline int64_t divide_up(int64_t total, int64_t part) { return (total + part - 1) / part; }
