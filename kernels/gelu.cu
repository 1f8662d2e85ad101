/* The feed-forward layer's activation, GELU(x + bias) in its exact form, and its gradients.
 *
 *     GELU(z)  = z · Φ(z)                  Φ the normal distribution's cumulative share, by erf
 *     GELU'(z) = Φ(z) + z · φ(z)           φ its density
 *
 * Bound by memory: every tensor is read or written once, in 16-byte pieces. A thread keeps eight features,
 * and their bias, and goes down the tokens of its part; the gradient of the bias is summed on the way.
 */
#include "column_sums.h"

constexpr int THREADS = 128;

__device__ __forceinline__ float share_below(float z) { return 0.5f + 0.5f * erff(z * 0.70710678f); }

/* grad null: the forward pass alone. Else grad_x gets the gradient of x and may be grad itself, out gets
 * GELU(x + bias) again unless it is null, and part_sums [parts, width] gets each part's sum over tokens. */
template <class T> struct Gelu {
    T *out, *grad_x;
    float *part_sums;
    const T *grad, *x, *bias;
    int64_t num_tokens, width, tokens_a_part;
};

template <class T, bool BACKWARD> __global__ void __launch_bounds__(THREADS) gelu(Gelu<T> p) {
    const int64_t feature = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8;
    if (feature >= p.width) return;
    const int64_t first = blockIdx.y * p.tokens_a_part;
    const int64_t end = first + p.tokens_a_part < p.num_tokens ? first + p.tokens_a_part : p.num_tokens;
    float bias[8], sums[8] = {};
    load8(bias, p.bias + feature);
    for (int64_t token = first; token < end; token++) {
        const int64_t place = token * p.width + feature;
        float x[8], out[8], grad[8];
        load8(x, p.x + place);
        if (BACKWARD) load8(grad, p.grad + place);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float z = x[i] + bias[i], share = share_below(z);
            out[i] = z * share;
            if (BACKWARD) {
                grad[i] *= share + z * 0.39894228f * expf(-0.5f * z * z);
                sums[i] += grad[i];
            }
        }
        if (p.out) store8(p.out + place, out);
        if (BACKWARD) store8(p.grad_x + place, grad);
    }
    if (BACKWARD) store8(p.part_sums + blockIdx.y * p.width + feature, sums);
}

template <class T, bool BACKWARD> static int launch_gelu(const Gelu<T> &p, int64_t parts, void *stream) {
    dim3 grid((unsigned)divide_up(p.width, 8 * THREADS), (unsigned)parts);
    return launch(gelu<T, BACKWARD>, grid, dim3(THREADS), 0, stream, p);
}

extern "C" int deltalm_gelu(void *out, const void *x, const void *bias, int64_t num_tokens, int64_t width,
                            int64_t dtype, void *stream) {
    if (width % 8) return INVALID_VALUE;
    if (!num_tokens) return 0;
    /* No sums, so parts may be as short as the GPU is best filled by. */
    const int64_t tokens = divide_up(num_tokens, 4 * MAX_PARTS);
    return with_type(dtype, [&](auto number) {
        using T = decltype(number);
        Gelu<T> p = {(T *)out,        nullptr,    nullptr, nullptr, (const T *)x,
                     (const T *)bias, num_tokens, width,   tokens};
        return launch_gelu<T, false>(p, divide_up(num_tokens, tokens), stream);
    });
}

extern "C" int deltalm_gelu_backward(void *grad_x, void *grad_bias, void *out, float *part_sums,
                                     const void *grad, const void *x, const void *bias, int64_t num_tokens,
                                     int64_t width, int64_t dtype, void *stream) {
    if (width % 8) return INVALID_VALUE;
    const int64_t parts = num_parts(num_tokens);
    return with_type(dtype, [&](auto number) {
        using T = decltype(number);
        Gelu<T> p = {(T *)out,        (T *)grad_x, part_sums, (const T *)grad,          (const T *)x,
                     (const T *)bias, num_tokens,  width,     tokens_a_part(num_tokens)};
        int error = parts ? launch_gelu<T, true>(p, parts, stream) : 0;
        const Sums<T> sums = {{(T *)grad_bias, nullptr, nullptr}, 1, width};
        return error ? error : launch_add_parts(sums, part_sums, parts, stream);
    });
}
