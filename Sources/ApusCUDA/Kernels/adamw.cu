// The end of a training step: the norm of all gradients, AdamW in the three precision modes, and biases of routers. See
// Ops/Optimizer.swift; Loshchilov and Hutter 2019, algorithm 2.
//
// All buffers of a model are one launch, each with blocks of its own. The floor of AdamW is the bytes: an element is 28
// bytes of traffic in f32 (p, m, v read and written, g read), 30 with bf16 weights and f32 master, 14 all in bf16.
// Arithmetic and Philox, some 90 operations, hide behind them. A `scale` that is not finite is the word to change
// nothing: the host learns later that a step went wrong.

#include "philox.cuh"
#include "reduce.cuh"

inline bool is_finite(float x) { return fabsf(x) < infinity; }

/// Buffers of one launch.
constexpr int most_buffers = 24;

/// A buffer's blocks in the grid: `blocks` of them from `first_block` on.
struct Blocks {
    i64 first, count;
};

/// The last of `count` buffers that begins at or before this block.
template <class Buffers> inline int buffer_of_block(const Buffers &buffers, i64 count) {
    int index = (int)count - 1;
    while (index > 0 && blockIdx.x < buffers.at[index].blocks.first) --index;
    return index;
}

/// The step's constants; those that follow from others are formed here, as the CPU does.
struct Step {
    float keep, beta1, rest1, beta2, rest2, root_scale, epsilon, rate, scale;
};

/// A flat run of parameters and what its step takes, as `AdamWRun`; `master` is null where the model's weights are
/// updated themselves.
struct Run {
    void *weights, *m, *v;
    const void *gradient;
    float *master;
    i64 n, is_wide;
    Blocks blocks;
    float rate, beta1, beta2, epsilon, decay, correction1, correction2, unused;
    u64 seed, word0, word1, first;
};

struct Runs {
    Run at[most_buffers];
};

inline Step make_step(const Run &run, float scale) {
    return {1.0f - run.rate * run.decay, run.beta1, 1.0f - run.beta1, run.beta2, 1.0f - run.beta2,
            1.0f / sqrtf(run.correction2), run.epsilon, run.rate / run.correction1, scale};
}

/// Calls `body(first, left)` for the groups of eight among a buffer's n elements that are this thread's.
template <class Body> inline void each_group_of(Blocks blocks, i64 n, Body body) {
    const i64 step = blocks.count * blockDim.x * lanes;
    const i64 begin = ((i64)(blockIdx.x - blocks.first) * blockDim.x + threadIdx.x) * lanes;
    for (i64 i = begin; i < n; i += step) body(i, n - i);
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
inline void adamw_wide(bf16 *weights, float *p, const Run &run, Step step) {
    float *m = (float *)run.m, *v = (float *)run.v;
    const float *gradient = (const float *)run.gradient;
    const bool vector =
        is_aligned(weights) && is_aligned(p) && is_aligned(m) && is_aligned(v) && is_aligned(gradient);
    each_group_of(run.blocks, run.n, [&](i64 i, i64 left) {
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
    });
}

/// Everything stored in bf16. One random word an element: its lower half rounds the weight, its upper half m, and a
/// multiple's upper half v. Each is uniform on its own, which is all that unbiased rounding needs. Element i draws word
/// first + i of the stream (seed, word0, word1).
inline void adamw_narrow(const Run &run, Step step) {
    bf16 *weights = (bf16 *)run.weights, *m = (bf16 *)run.m, *v = (bf16 *)run.v;
    const bf16 *gradient = (const bf16 *)run.gradient;
    const RandomStream stream = {run.seed, (u32)run.word0, (u32)run.word1};
    const bool vector = is_aligned(weights) && is_aligned(m) && is_aligned(v) && is_aligned(gradient);
    each_group_of(run.blocks, run.n, [&](i64 i, i64 left) {
        Lanes w, m1, v1, g;
        u32 words[lanes];
        load(w, weights + i, left, vector);
        load(m1, m + i, left, vector);
        load(v1, v + i, left, vector);
        load(g, gradient + i, left, vector);
        random_words(words, stream, run.first + (u64)i);
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
    });
}

/// One step of `count` runs; nothing at all where `scale` is not finite. Launch: the blocks of all runs, 256 threads.
extern "C" __global__ void adamw(const __grid_constant__ Runs runs, i64 count, const float *scale) {
    const float factor = scale[0];
    if (!is_finite(factor)) return;
    const Run &run = runs.at[buffer_of_block(runs, count)];
    const Step step = make_step(run, factor);
    if (!run.is_wide) {
        adamw_narrow(run, step);
    } else if (run.master) {
        adamw_wide((bf16 *)run.weights, run.master, run, step);
    } else {
        adamw_wide(nullptr, (float *)run.weights, run, step);
    }
}

/// A buffer of gradients.
struct Gradients {
    const void *x;
    i64 n, is_half;
    Blocks blocks;
};

struct GradientBuffers {
    Gradients at[most_buffers];
};

/// partials[b] = the sum of squares of the 65,536 elements, or fewer at a buffer's end, that block b has. Launch: the
/// blocks of all buffers, 256 threads. `finish_sum` adds them.
extern "C" __global__ void gradient_squares(
    double *partials, const __grid_constant__ GradientBuffers buffers, i64 count) {
    const Gradients &buffer = buffers.at[buffer_of_block(buffers, count)];
    const i64 begin = (blockIdx.x - buffer.blocks.first) * block_elements;
    const i64 extent = min(buffer.n - begin, block_elements);
    const auto square = [](float u) { return u * u; };
    const double sum = buffer.is_half ? block_sum((const bf16 *)buffer.x, begin, extent, square)
                                      : block_sum((const float *)buffer.x, begin, extent, square);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// scale[0] = the factor that brings a gradient with this sum of squares to a norm of at most `limit`, 1 without a
/// limit; NaN where the sum, `loss` or the factor of the step before is not finite. Launch: one thread. The small
/// constant is PyTorch's, so that a clipped run follows its loss curve.
extern "C" __global__ void clip_factor(
    float *scale, const float *sum_of_squares, const float *loss, const float *previous, float limit) {
    const float squares = sum_of_squares[0];
    const bool is_sound =
        is_finite(squares) && (!loss || is_finite(loss[0])) && (!previous || is_finite(previous[0]));
    const float factor = limit > 0 ? fminf(1.0f, limit / (sqrtf(squares) + 1e-6f)) : 1.0f;
    scale[0] = is_sound ? factor : __int_as_float(0x7FC00000);
}

/// bias[e] += rate where the load of expert e, the sum of its choices (groups, E), is below the mean, -= rate where it is
/// above; nothing where `scale` is not finite. Launch: one block of 1,024 threads, E at most that many.
extern "C" __global__ void move_selection_bias(
    float *bias, const float *choices, i64 groups, i64 experts, float rate, const float *scale) {
    if (!is_finite(scale[0])) return;
    const i64 expert = threadIdx.x;
    double load = 0;
    if (expert < experts) {
        for (i64 group = 0; group < groups; ++group) load += choices[group * experts + expert];
    }
    const float mean = (float)row_sum(load) / (float)experts;
    if (expert >= experts) return;
    const float own = (float)load;
    bias[expert] += rate * (own < mean ? 1.0f : own > mean ? -1.0f : 0.0f);
}
