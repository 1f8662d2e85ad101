/* Adam with decoupled weight decay (Loshchilov and Hutter, 2019) for many tensors in one launch.
 *
 *     g = grad · grad_scale                m = b1 · m + (1 - b1) · g            v = b2 · v + (1 - b2) · g²
 *     w = w · (1 - rate · decay) - rate / (1 - b1^t) · m / (√v / √(1 - b2^t) + eps)
 *
 * in fp32, as torch's AdamW has it. Where the model's own weights are of 16 bits, they are written in the
 * same pass, rounded from w. grad_scale may be a number on the device, so that clipping needs no wait for it;
 * where it is not finite nothing changes. Bound by memory: a block has CHUNK numbers of one tensor, found in
 * a table.
 */
#include "numbers.h"

constexpr int THREADS = 256;
constexpr int64_t CHUNK = 1 << 14; /* also in ops/cuda, which makes the table */

/* One tensor; all of `length` numbers, aligned to 16 bytes. */
struct AdamTensor {
    float *weight, *first_moment, *second_moment;
    const void *grad;
    void *rounded_weight; /* null where weights are trained in fp32 */
    int64_t length;
};

/* A block's part of a tensor. */
struct AdamChunk {
    int64_t tensor, start;
};

struct Adam {
    const AdamTensor *tensors;
    const AdamChunk *chunks;
    const float *grad_scale; /* null: 1 */
    float beta1, beta2, step_size, decay, root_of_correction,
        epsilon; /* rate / (1 - b1^t), 1 - rate · decay, √(1 - b2^t) */
};

__device__ __forceinline__ void adam_step(float &w, float &m, float &v, float g, const Adam &p) {
    m = p.beta1 * m + (1 - p.beta1) * g;
    v = p.beta2 * v + (1 - p.beta2) * g * g;
    w = w * p.decay - p.step_size * m / (sqrtf(v) / p.root_of_correction + p.epsilon);
}

/* G: of the gradients, W: of the rounded weights. */
template <class G, class W> __global__ void __launch_bounds__(THREADS) adam(Adam p) {
    const AdamChunk chunk = p.chunks[blockIdx.x];
    const AdamTensor tensor = p.tensors[chunk.tensor];
    const float grad_scale = p.grad_scale ? *p.grad_scale : 1.0f;
    if (!(fabsf(grad_scale) < INFINITY)) return;
    const int64_t end = chunk.start + CHUNK < tensor.length ? chunk.start + CHUNK : tensor.length;
    const G *grad = (const G *)tensor.grad;
    W *rounded = (W *)tensor.rounded_weight;
    int64_t first = chunk.start + threadIdx.x * 8;
    for (; first + 8 <= end; first += THREADS * 8) {
        float w[8], m[8], v[8], g[8];
        load8(w, tensor.weight + first);
        load8(m, tensor.first_moment + first);
        load8(v, tensor.second_moment + first);
        load8(g, grad + first);
#pragma unroll
        for (int i = 0; i < 8; i++) adam_step(w[i], m[i], v[i], g[i] * grad_scale, p);
        store8(tensor.weight + first, w);
        store8(tensor.first_moment + first, m);
        store8(tensor.second_moment + first, v);
        if (rounded) store8(rounded + first, w);
    }
    for (; first < end; first++) { /* at most seven numbers, of one thread */
        float w = tensor.weight[first], m = tensor.first_moment[first], v = tensor.second_moment[first];
        adam_step(w, m, v, to_float(grad[first]) * grad_scale, p);
        tensor.weight[first] = w;
        tensor.first_moment[first] = m;
        tensor.second_moment[first] = v;
        if (rounded) from_float(rounded[first], w);
    }
}

extern "C" int deltalm_adam(const AdamTensor *tensors, const AdamChunk *chunks, int64_t num_chunks,
                            const float *grad_scale, float beta1, float beta2, float step_size, float decay,
                            float root_of_correction, float epsilon, int64_t grad_dtype,
                            int64_t rounded_dtype, void *stream) {
    if (!num_chunks) return 0;
    const Adam p = {tensors, chunks, grad_scale, beta1, beta2, step_size, decay, root_of_correction, epsilon};
    return with_type(grad_dtype, [&](auto grad) {
        return with_type(rounded_dtype, [&](auto rounded) {
            return launch(adam<decltype(grad), decltype(rounded)>, dim3((unsigned)num_chunks), dim3(THREADS),
                          0, stream, p);
        });
    });
}
