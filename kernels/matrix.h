/* The matrix units through mma.sync, which every architecture from sm_80 on has, and what feeds them.
 *
 * A warp multiplies a tile of 16 x 16 by one of 16 x 8. With group g = lane / 4 and t = lane % 4, a lane
 * holds
 *
 *     a[0..4)  pairs of A at (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
 *     b[0..2)  pairs of B at (2t, g), (2t + 8, g), down a column
 *     c[0..4)  C at (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1), in fp32
 *
 * (PTX ISA, "Matrix Fragments for mma.m16n8k16"). On a CPU the lanes exchange their fragments.
 */
#pragma once

#include "numbers.h"

template <class T> __device__ __forceinline__ uint32_t pair_of(float low, float high) {
    T first, second;
    from_float(first, low);
    from_float(second, high);
    return first.bits | (uint32_t)second.bits << 16;
}

#ifndef DELTALM_ON_CPU

template <class T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#define DELTALM_MULTIPLY_ADD(type, name)                                                                     \
    template <> __device__ __forceinline__ void multiply_add<type>(float (&c)[4], const uint32_t (&a)[4],    \
                                                                   const uint32_t (&b)[2]) {                 \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                  \
                     ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                            \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                        \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                    \
    }
DELTALM_MULTIPLY_ADD(bf16, "bf16")
DELTALM_MULTIPLY_ADD(fp16, "f16")
#undef DELTALM_MULTIPLY_ADD

/* Four 8 x 8 tiles of 16-bit numbers: lane l gives the address of row l % 8 of tile l / 8, and gets of tile i
 * in to[i] the pair (l / 4, 2 (l % 4)); transposed, the pair (2 (l % 4), l / 4) down a column. */
__device__ __forceinline__ void load_tiles(uint32_t (&to)[4], const void *row) {
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_tiles_transposed(uint32_t (&to)[4], const void *row) {
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

/* 16 bytes from global to shared memory, not waited for; zeros if not `inside`, and then `from` is not read.
 */
__device__ __forceinline__ void copy16(void *to, const void *from, bool inside) {
    uint32_t address = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
}
/* Ends a group of copies. */
__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most NUM_GROUPS groups of this thread's copies are under way. */
template <int NUM_GROUPS> __device__ __forceinline__ void wait_for_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(NUM_GROUPS) : "memory");
}

#else

namespace on_cpu {
struct Fragments {
    uint32_t a[4], b[2];
};
template <class T> inline float half_of(uint32_t pair, int which) {
    T number;
    number.bits = (uint16_t)(pair >> 16 * which);
    return to_float(number);
}
} // namespace on_cpu

template <class T> inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    on_cpu::Fragments own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    auto lanes = on_cpu::exchange(own);
    auto of = [&](int lane) { return (const on_cpu::Fragments *)lanes[lane]; };
    const int group = lane_of_thread() / 4, t = lane_of_thread() % 4;
    for (int i = 0; i < 4; i++) {
        const int column = 2 * t + i % 2, lower = i / 2;
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            const int lane_of_k = k % 8 / 2, second = k / 8;
            sum += on_cpu::half_of<T>(of(group * 4 + lane_of_k)->a[2 * second + lower], k % 2) *
                   on_cpu::half_of<T>(of(column * 4 + lane_of_k)->b[second], k % 2);
        }
        c[i] += sum;
    }
}

inline void load_tiles(uint32_t (&to)[4], const void *row) {
    auto rows = on_cpu::exchange(row);
    const int lane = lane_of_thread();
    for (int tile = 0; tile < 4; tile++)
        memcpy(&to[tile], *(const char **)rows[tile * 8 + lane / 4] + lane % 4 * 4, 4);
}
inline void load_tiles_transposed(uint32_t (&to)[4], const void *row) {
    auto rows = on_cpu::exchange(row);
    const int lane = lane_of_thread();
    for (int tile = 0; tile < 4; tile++)
        for (int i = 0; i < 2; i++)
            memcpy((char *)&to[tile] + 2 * i,
                   *(const char **)rows[tile * 8 + lane % 4 * 2 + i] + lane / 4 * 2, 2);
}

/* As late as a GPU may be with them: at the wait. */
inline void copy16(void *to, const void *from, bool inside) {
    on_cpu::block->running->copies.push_back({to, from, inside});
}
inline void close_group() {
    auto &fiber = *on_cpu::block->running;
    fiber.groups.push_back(std::move(fiber.copies));
    fiber.copies.clear();
}
template <int NUM_GROUPS> inline void wait_for_groups() {
    auto &groups = on_cpu::block->running->groups;
    for (; groups.size() > NUM_GROUPS; groups.pop_front())
        for (const on_cpu::Copy &copy : groups.front())
            copy.inside ? memcpy(copy.to, copy.from, 16) : memset(copy.to, 0, 16);
}

#endif
