/* CUDA's threads on a CPU, so that tests run the very kernels that GPUs run.
 *
 * A block's threads are fibers: one runs until it must wait for others, at a barrier or at an exchange within
 * its warp, then the next one. They are resumed in ascending or, after `deltalm_shuffle_threads(seed)`, in
 * ever new random orders: a barrier that is missing shows in at least one of the two. Dynamic shared memory
 * starts as NaN. Blocks are spread over the cores; after `deltalm_begin_at_block(n)` earlier ones are left
 * out, so that offsets past 2^31 can be tried without the memory before them. A block whose threads wait for
 * ever ends the process.
 */
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

namespace on_cpu {

constexpr int WARP = 32;
constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t LONGEST_EXCHANGE = 64; /* bytes of one lane */

/* Where threads wait for each other: the last one to come lets all go on. */
struct Meeting {
    uint64_t generation = 0;
    int num_waiting = 0;
};

/* A copy of 16 bytes, or zeros, that is under way. */
struct Copy {
    void *to;
    const void *from;
    bool inside;
};

struct Fiber {
    dim3 thread;
    std::vector<Copy> copies;             /* of the group that is not closed yet */
    std::deque<std::vector<Copy>> groups; /* closed, and not waited for */
    std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
    ucontext_t start;
    jmp_buf paused;
    bool is_started = false, is_done = false;
    const Meeting *waits_at;
    uint64_t since; /* the generation of `waits_at` when it began to wait */
};

struct Warp {
    Meeting meeting;
    alignas(16) unsigned char deposits[2][WARP][LONGEST_EXCHANGE];
};

struct Block {
    dim3 grid, size, index;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<unsigned char> shared_memory;
    Meeting barrier;
    int num_alive;
    Fiber *running;
    int running_number;
    jmp_buf scheduler;
    std::function<void()> kernel;
    std::mt19937 random;
};

inline thread_local Block *block;
/* Set by controls.cpp. */
inline std::atomic<uint32_t> shuffle_seed{0};
inline std::atomic<int64_t> first_block{0};
/* The most dynamic shared memory of a launch. */
inline std::atomic<int64_t> most_shared_bytes{0};

inline void release(Meeting &meeting) {
    meeting.num_waiting = 0;
    meeting.generation++;
}

/* Wait until `expected` threads have come here. */
inline void meet(Meeting &meeting, int expected) {
    if (++meeting.num_waiting == expected) return release(meeting);
    Fiber *fiber = block->running;
    fiber->waits_at = &meeting;
    fiber->since = meeting.generation;
    if (!_setjmp(fiber->paused)) _longjmp(block->scheduler, 1);
}

/* Give every lane of this warp `value`; returns an array of what the lanes gave. All 32 lanes must come. */
template <class T> inline const unsigned char (*exchange(const T &value)) [LONGEST_EXCHANGE] {
    static_assert(sizeof(T) <= LONGEST_EXCHANGE);
    Warp &warp = block->warps[block->running_number / WARP];
    auto deposits = warp.deposits[warp.meeting.generation & 1]; /* the other half may still be read */
    memcpy(deposits[block->running_number % WARP], &value, sizeof(T));
    meet(warp.meeting, WARP);
    return deposits;
}

template <class T>
inline T from_lane(const T &value, int lane) {
    T got;
    memcpy(&got, exchange(value)[lane], sizeof(T));
    return got;
}

/* A fiber runs the thread of one block after the other. */
inline void run_fiber() {
    for (;;) {
        block->kernel();
        block->running->is_done = true;
        if (--block->num_alive && block->barrier.num_waiting == block->num_alive) release(block->barrier);
        if (!_setjmp(block->running->paused)) _longjmp(block->scheduler, 1);
    }
}

inline void resume(int number) {
    Fiber &fiber = block->fibers[number];
    block->running = &fiber;
    block->running_number = number;
    if (_setjmp(block->scheduler)) return;
    if (fiber.is_started) _longjmp(fiber.paused, 1);
    fiber.is_started = true;
    setcontext(&fiber.start);
}

inline void start_fiber(int number) {
    Fiber &fiber = block->fibers[number];
    const dim3 &size = block->size;
    unsigned n = number;
    fiber.thread = dim3(n % size.x, n / size.x % size.y, n / (size.x * size.y));
    fiber.is_done = false;
    fiber.waits_at = nullptr;
    fiber.copies.clear();
    fiber.groups.clear();
    if (fiber.is_started) return;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK_BYTES;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
}

inline void run_block() {
    int num_threads = block->size.x * block->size.y * block->size.z;
    block->fibers.resize(num_threads);
    block->warps.assign((num_threads + WARP - 1) / WARP, Warp());
    block->barrier = Meeting();
    block->num_alive = num_threads;
    std::fill(block->shared_memory.begin(), block->shared_memory.end(), 0xff); /* NaN in every type */
    std::vector<int> order(num_threads);
    for (int number = 0; number < num_threads; number++) {
        order[number] = number;
        start_fiber(number);
    }
    while (block->num_alive) {
        if (shuffle_seed) std::shuffle(order.begin(), order.end(), block->random);
        bool any_resumed = false;
        for (int number : order) {
            Fiber &fiber = block->fibers[number];
            if (fiber.is_done || (fiber.waits_at && fiber.waits_at->generation == fiber.since)) continue;
            fiber.waits_at = nullptr;
            any_resumed = true;
            resume(number);
        }
        if (any_resumed) continue;
        fprintf(stderr, "deadlock: not all threads of block %u, %u, %u come to a barrier or an exchange\n",
                block->index.x, block->index.y, block->index.z);
        abort();
    }
}

} // namespace on_cpu

#define threadIdx (on_cpu::block->running->thread)
#define blockIdx (on_cpu::block->index)
#define blockDim (on_cpu::block->size)
#define gridDim (on_cpu::block->grid)

inline void __syncthreads() { on_cpu::meet(on_cpu::block->barrier, on_cpu::block->num_alive); }
inline void __syncwarp() { on_cpu::exchange(0); }
template <class T> inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return on_cpu::from_lane(value, (on_cpu::block->running_number % on_cpu::WARP) ^ mask);
}
template <class T> inline T __shfl_sync(unsigned, T value, int lane) {
    return on_cpu::from_lane(value, lane);
}

/* Dynamic shared memory, aligned to 128 bytes, from an offset in bytes on. */
template <class T> inline T *shared_array(size_t offset) {
    uintptr_t start = ((uintptr_t)on_cpu::block->shared_memory.data() + 127) & ~(uintptr_t)127;
    return (T *)(start + offset);
}

template <class... Parameters, class... Arguments> inline int launch(void (*kernel)(Parameters...), dim3 grid,
                                                                     dim3 size, size_t shared_bytes, void *,
                                                                     Arguments... arguments) {
    on_cpu::most_shared_bytes = std::max<int64_t>(on_cpu::most_shared_bytes, shared_bytes);
    std::atomic<int64_t> next{on_cpu::first_block.load()};
    int64_t num_blocks = (int64_t)grid.x * grid.y * grid.z;
    auto work = [&] {
        static thread_local on_cpu::Block own; /* keeps its fibers' stacks for the next launch */
        on_cpu::block = &own;
        own.grid = grid;
        own.size = size;
        own.shared_memory.resize(shared_bytes + 128);
        own.random.seed(on_cpu::shuffle_seed);
        own.kernel = [&] { kernel(arguments...); };
        for (int64_t i; (i = next++) < num_blocks;) {
            own.index = dim3(i % grid.x, i / grid.x % grid.y, i / ((int64_t)grid.x * grid.y));
            on_cpu::run_block();
        }
    };
    std::vector<std::thread> workers;
    unsigned num_workers = std::max(1u, std::thread::hardware_concurrency());
    for (unsigned i = 1; i < std::min<int64_t>(num_workers, num_blocks); i++) workers.emplace_back(work);
    work(); /* here, where the fibers of earlier launches are */
    for (std::thread &worker : workers) worker.join();
    return 0;
}
