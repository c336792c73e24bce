// AdamW in the three precision modes, over the flat buffers of all parameters of a role: one launch each. See
// Ops/Optimizer.swift; Loshchilov and Hutter 2019, algorithm 2.
//
// Launch: "flat". The floor is the bytes: an element is 32 bytes of traffic in f32 (p, m, v, g read and written), 34
// with bf16 weights and f32 master, 16 all in bf16. Arithmetic and Philox, some 90 operations, hide behind them.

#include "philox.cuh"

/// The step's constants; those that follow from others are formed here, as the CPU does.
struct Step {
    float keep, beta1, rest1, beta2, rest2, root_scale, epsilon, rate, scale;
};

inline Step make_step(
    float rate, float beta1, float beta2, float epsilon, float decay, float correction1, float correction2,
    const float *scale) {
    return {1.0f - rate * decay, beta1, 1.0f - beta1, beta2, 1.0f - beta2, 1.0f / sqrtf(correction2), epsilon,
            rate / correction1, scale[0]};
}

/// Moments of parameters that get no gradient for long go to 0, as on the CPU.
inline float flushed(float x) { return fabsf(x) < 7.52316385e-37f ? 0.0f : x; }

inline float root(float x) {
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// Root and quotient to 2^-22: the exact forms' branches would cost more than the bytes.
inline void update(float &p, float &m, float &v, float gradient, const Step &k) {
    const float g = gradient * k.scale;
    m = flushed(m * k.beta1 + g * k.rest1);
    v = flushed(v * k.beta2 + g * g * k.rest2);
    p = p * k.keep - k.rate * __fdividef(m, root(v) * k.root_scale + k.epsilon);
}

/// Rounds to bf16 up with probability equal to the discarded fraction; the low 16 bits of `random` decide. Infinity and
/// NaN stay.
inline float rounded(float x, u32 random) {
    const u32 bits = __float_as_uint(x);
    const bool is_finite = (bits & 0x7F800000u) != 0x7F800000u;
    return is_finite ? __uint_as_float((bits + (random & 0xFFFFu)) & 0xFFFF0000u) : x;
}

/// f32 moments and gradients; `weights`, or null, gets the updated parameters rounded to nearest even.
inline void adamw_wide(bf16 *weights, float *p, float *m, float *v, float *gradient, i64 n, Step step, i64 zeroes) {
    const bool vector =
        is_aligned(weights) && is_aligned(p) && is_aligned(m) && is_aligned(v) && is_aligned(gradient);
    each_group(n, [&](i64 i, i64 left) {
        Lanes w, m1, v1, g;
        load(w, p + i, left, vector);
        load(m1, m + i, left, vector);
        load(v1, v + i, left, vector);
        load(g, gradient + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) update(w.x[l], m1.x[l], v1.x[l], g.x[l], step);
        store(p + i, w, left, vector);
        store(m + i, m1, left, vector);
        store(v + i, v1, left, vector);
        if (weights) store(weights + i, w, left, vector);
        if (zeroes) store(gradient + i, Lanes{}, left, vector);
    });
}

/// Everything stored in bf16. One random word an element: its lower half rounds the weight, its upper half m, and a
/// multiple's upper half v. Each is uniform on its own, which is all that unbiased rounding needs.
inline void adamw_narrow(
    bf16 *weights, bf16 *m, bf16 *v, bf16 *gradient, i64 n, Step step, i64 zeroes, RandomStream stream, u64 first) {
    const bool vector = is_aligned(weights) && is_aligned(m) && is_aligned(v) && is_aligned(gradient);
    each_group(n, [&](i64 i, i64 left) {
        Lanes w, m1, v1, g;
        u32 words[lanes];
        load(w, weights + i, left, vector);
        load(m1, m + i, left, vector);
        load(v1, v + i, left, vector);
        load(g, gradient + i, left, vector);
        random_words(words, stream, first + (u64)i);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
            update(w.x[l], m1.x[l], v1.x[l], g.x[l], step);
            w.x[l] = rounded(w.x[l], words[l]);
            m1.x[l] = rounded(m1.x[l], words[l] >> 16);
            v1.x[l] = rounded(v1.x[l], (words[l] * 0x9E3779B1u) >> 16);
        }
        store(weights + i, w, left, vector);
        store(m + i, m1, left, vector);
        store(v + i, v1, left, vector);
        if (zeroes) store(gradient + i, Lanes{}, left, vector);
    });
}

extern "C" __global__ void adamw_f32(
    float *weights, float *m, float *v, float *gradient, i64 n, float rate, float beta1, float beta2, float epsilon,
    float decay, float correction1, float correction2, const float *scale, i64 zeroes) {
    const Step step = make_step(rate, beta1, beta2, epsilon, decay, correction1, correction2, scale);
    adamw_wide(nullptr, weights, m, v, gradient, n, step, zeroes);
}

extern "C" __global__ void adamw_bf16(
    bf16 *weights, float *master, float *m, float *v, float *gradient, i64 n, float rate, float beta1, float beta2,
    float epsilon, float decay, float correction1, float correction2, const float *scale, i64 zeroes) {
    const Step step = make_step(rate, beta1, beta2, epsilon, decay, correction1, correction2, scale);
    adamw_wide(weights, master, m, v, gradient, n, step, zeroes);
}

/// Element i draws word first + i of the stream (seed, word0, word1).
extern "C" __global__ void adamw_bf16_pure(
    bf16 *weights, bf16 *m, bf16 *v, bf16 *gradient, i64 n, float rate, float beta1, float beta2, float epsilon,
    float decay, float correction1, float correction2, const float *scale, i64 zeroes, i64 seed, i64 word0, i64 word1,
    i64 first) {
    const Step step = make_step(rate, beta1, beta2, epsilon, decay, correction1, correction2, scale);
    adamw_narrow(weights, m, v, gradient, n, step, zeroes, {(u64)seed, (u32)word0, (u32)word1}, (u64)first);
}

/// scale[0] = the factor that brings a gradient with this sum of squares to a norm of at most `limit`; 1 without a
/// limit. Launch: one thread. The small constant is PyTorch's, so that a clipped run follows its loss curve.
extern "C" __global__ void clip_factor(float *scale, const float *sum_of_squares, float limit) {
    scale[0] = limit > 0 ? fminf(1.0f, limit / (sqrtf(sum_of_squares[0]) + 1e-6f)) : 1.0f;
}
