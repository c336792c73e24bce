// A student's logits (T, V) held against a teacher's, probabilities never stored. See Ops/Distillation.swift.
//
// Launch: T blocks of 256 threads, a block to a row. Each direction is one pass over both, with a running maximum a
// thread forward, in place backward where gradient is student. The floor is those bytes: 2 T V read; as many and T V
// written.

#include "reduce.cuh"

/// A running sum of exp(x - top), and the same weighted.
struct Sums {
    float top = -infinity, sum = 0, weighted = 0;

    /// Goes on with a larger maximum.
    inline void raise(float to) {
        const float shrink = top > -infinity ? expf(top - to) : 0.0f;
        if (to > top) {
            sum *= shrink;
            weighted *= shrink;
            top = to;
        }
    }

    /// What sums are taken from: any finite number does where there is nothing but minus infinity.
    inline float base() const { return top > -infinity ? top : 0.0f; }
};

/// Over a row; afterwards every thread has the row's.
inline Sums whole(Sums own) {
    own.raise(row_max(own.top));
    own.sum = row_sum(own.sum);
    own.weighted = row_sum(own.weighted);
    return own;
}

/// difference[t] is the mean of (teacher - student) * inverse under softmax(teacher * inverse), the logs those of the
/// sums of exponentials; all 0 where the target is negative.
extern "C" __global__ void __launch_bounds__(256) divergence(
    float *difference, float *teacher_log, float *student_log, const float *teacher, i64 teacher_stride,
    const float *student, i64 student_stride, const i32 *targets, i64 width, float inverse) {
    const i64 row = blockIdx.x;
    if (targets[row] < 0) {
        if (threadIdx.x == 0) difference[row] = teacher_log[row] = student_log[row] = 0;
        return;
    }
    const float *from = teacher + row * teacher_stride, *own = student + row * student_stride;
    const bool vector = is_aligned(from) && is_aligned(own);
    Sums t, s;
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u, v;
        load(u, from + i, left, vector);
        load(v, own + i, left, vector);
        float highest = -infinity, high = -infinity;
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
            u.x[l] *= inverse;
            v.x[l] *= inverse;
            highest = l < left ? fmaxf(highest, u.x[l]) : highest;
            high = l < left ? fmaxf(high, v.x[l]) : high;
        }
        t.raise(highest);
        s.raise(high);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
            const float e = l < left ? expf(u.x[l] - t.base()) : 0.0f;
            t.sum += e;
            t.weighted += l < left ? e * (u.x[l] - v.x[l]) : 0.0f;
            s.sum += l < left ? expf(v.x[l] - s.base()) : 0.0f;
        }
    });
    t = whole(t);
    s = whole(s);
    if (threadIdx.x > 0) return;
    difference[row] = t.sum == 0.0f ? 0.0f : t.weighted / t.sum;
    teacher_log[row] = t.sum == 0.0f ? -infinity : t.base() + logf(t.sum);
    student_log[row] = s.sum == 0.0f ? -infinity : s.base() + logf(s.sum);
}

/// gradient[t, v] = scale[0] * (exp(student - lse) - [v = target]
///     + weight * (exp(student * inverse - student_log) - exp(teacher * inverse - teacher_log))), 0 in ignored rows.
template <class Y>
inline void distillation_backward(
    Y *gradient, i64 gradient_stride, const float *student, i64 student_stride, const float *teacher,
    i64 teacher_stride, const float *lse, const float *student_log, const float *teacher_log, const i32 *targets,
    const float *scale, i64 width, float weight, float inverse) {
    const i64 row = blockIdx.x;
    const i32 target = targets[row];
    const float *own = student + row * student_stride, *from = teacher + row * teacher_stride;
    Y *out = gradient + row * gradient_stride;
    const bool vector = is_aligned(own) && is_aligned(from) && is_aligned(out);
    const float base = lse[row], own_log = student_log[row], other_log = teacher_log[row], factor = scale[0];
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u = {};
        if (target >= 0) {
            Lanes v;
            load(u, own + i, left, vector);
            load(v, from + i, left, vector);
            each(u, [&](int l) {
                const float apart = expf(u.x[l] * inverse - own_log) - expf(v.x[l] * inverse - other_log);
                const float here = i + l == target ? factor : 0.0f;
                return expf(u.x[l] - base) * factor - here + apart * (weight * factor);
            });
        }
        store(out + i, u, left, vector);
    });
}

/// Named by the type of the gradient.
#define DEFINE_BACKWARD(suffix, Y)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256) distillation_backward_##suffix(                                  \
        Y *gradient, i64 gradient_stride, const float *student, i64 student_stride, const float *teacher,              \
        i64 teacher_stride, const float *lse, const float *student_log, const float *teacher_log, const i32 *targets,  \
        const float *scale, i64 width, float weight, float inverse) {                                                  \
        distillation_backward(                                                                                         \
            gradient, gradient_stride, student, student_stride, teacher, teacher_stride, lse, student_log,             \
            teacher_log, targets, scale, width, weight, inverse);                                                      \
    }
DEFINE_BACKWARD(f32, float)
DEFINE_BACKWARD(bf16, bf16)
