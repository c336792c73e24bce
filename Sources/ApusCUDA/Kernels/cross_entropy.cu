// Cross-entropy over rows of logits (T, V), probabilities never stored. See Ops/CrossEntropy.swift.
//
// Launch: T blocks of 256 threads, a block to a row. Forward is one pass over the logits with a running maximum a
// thread; backward one more pass, in place where gradient is logits. The floor is those bytes: T V read; T V read and
// written.

#include "reduce.cuh"

/// loss[t] = lse[t] - logits[t, target], lse[t] = log(sum(exp(logits[t]))); both 0 where the target is negative.
template <class T>
inline void cross_entropy(float *loss, float *lse, const T *logits, i64 stride, const i32 *targets, i64 width) {
    const i64 row = blockIdx.x;
    const i32 target = targets[row];
    if (target < 0) {
        if (threadIdx.x == 0) loss[row] = lse[row] = 0;
        return;
    }
    const T *in = logits + row * stride;
    const bool vector = is_aligned(in);
    float top = -infinity, sum = 0;
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u;
        load(u, in + i, left, vector);
        float here = -infinity, group = 0;
#pragma unroll
        for (int l = 0; l < lanes; ++l) here = l < left ? fmaxf(here, u.x[l]) : here;
        const float base = fmaxf(top, here);
        // Nothing but minus infinity (or NaN) so far: any finite base does.
        const float shift = base > -infinity ? base : 0.0f;
#pragma unroll
        for (int l = 0; l < lanes; ++l) group += l < left ? expf(u.x[l] - shift) : 0.0f;
        sum = (top > -infinity ? sum * expf(top - shift) : sum) + group;
        top = base;
    });
    const float all = row_max(top), base = all > -infinity ? all : 0.0f;
    sum = row_sum(top > -infinity ? sum * expf(top - base) : sum);
    if (threadIdx.x > 0) return;
    const float value = sum == 0.0f ? -infinity : base + logf(sum);
    lse[row] = value;
    loss[row] = value - to_float(in[target]);
}

/// gradient[t, v] = scale[0] * (softmax(logits)[t, v] - [v = target]), 0 in ignored rows; rounded once.
template <class T, class Y>
inline void cross_entropy_backward(
    Y *gradient, i64 gradient_stride, const T *logits, i64 stride, const float *lse, const i32 *targets,
    const float *scale, i64 width) {
    const i64 row = blockIdx.x;
    const i32 target = targets[row];
    const T *in = logits + row * stride;
    Y *out = gradient + row * gradient_stride;
    const bool vector = is_aligned(in) && is_aligned(out);
    const float base = lse[row], factor = scale[0];
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u = {};
        if (target >= 0) {
            load(u, in + i, left, vector);
            each(u, [&](int l) { return expf(u.x[l] - base) * factor - (i + l == target ? factor : 0.0f); });
        }
        store(out + i, u, left, vector);
    });
}

/// Forward is named by the type of the logits, backward by those of the logits and of the gradient.
#define DEFINE_FORWARD(suffix, T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) cross_entropy_##suffix(                                          \
        float *loss, float *lse, const T *logits, i64 stride, const i32 *targets, i64 width) {                         \
        cross_entropy(loss, lse, logits, stride, targets, width);                                                      \
    }
DEFINE_FORWARD(f32, float)
DEFINE_FORWARD(bf16, bf16)

#define DEFINE_BACKWARD(suffix, T, Y)                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_##suffix(                                 \
        Y *gradient, i64 gradient_stride, const T *logits, i64 stride, const float *lse, const i32 *targets,           \
        const float *scale, i64 width) {                                                                               \
        cross_entropy_backward(gradient, gradient_stride, logits, stride, lse, targets, scale, width);                 \
    }
DEFINE_BACKWARD(f32_f32, float, float)
DEFINE_BACKWARD(bf16_bf16, bf16, bf16)
DEFINE_BACKWARD(f32_bf16, float, bf16)
