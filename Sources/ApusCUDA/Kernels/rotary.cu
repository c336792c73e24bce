// Rotary position embedding, element i of a head paired with i + width / 2. See Ops/Rotary.swift; Su et al., RoFormer.
//
// `rotate` launch: "rows" for T * heads rows of width / 2. The floor is x and y once; tables stay in cache. y may be x.

#include "reduce.cuh"

/// cosines and sines (positions, width / 2). Launch "flat" for positions * width / 2 elements; angles are f64.
extern "C" __global__ void rotary_table(float *cosines, float *sines, i64 positions, i64 width, double theta) {
    const i64 pairs = width / 2;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < positions * pairs; i += (i64)gridDim.x * blockDim.x) {
        const i64 position = i / pairs, pair = i - position * pairs;
        const double angle = (double)position * pow(theta, -2.0 * (double)pair / (double)width);
        cosines[i] = (float)cos(angle);
        sines[i] = (float)sin(angle);
    }
}

template <class T>
inline void rotate(
    T *y, i64 y_stride, const T *x, i64 x_stride, const float *cosines, const float *sines, const i32 *positions,
    i64 tokens, i64 heads, i64 width, i64 inverse) {
    const i64 row = row_index();
    if (row >= tokens * heads) return;
    const i64 token = row / heads, head = row - token * heads, pairs = width / 2;
    const T *in = x + token * x_stride + head * width;
    T *out = y + token * y_stride + head * width;
    const float *cosine = cosines + positions[token] * pairs, *sine = sines + positions[token] * pairs;
    const float sign = inverse ? -1.0f : 1.0f;
    const bool vector = is_aligned(in, pairs) && is_aligned(out) && is_aligned(cosine, pairs) && is_aligned(sine);
    each_row_group(pairs, [&](i64 i, i64 left) {
        Lanes a, b, c, s, p;
        load(a, in + i, left, vector);
        load(b, in + pairs + i, left, vector);
        load(c, cosine + i, left, vector);
        load(s, sine + i, left, vector);
        each(p, [&](int l) { return a.x[l] * c.x[l] - b.x[l] * s.x[l] * sign; });
        each(b, [&](int l) { return b.x[l] * c.x[l] + a.x[l] * s.x[l] * sign; });
        store(out + i, p, left, vector);
        store(out + pairs + i, b, left, vector);
    });
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void rotate_##suffix(                                                                        \
        T *y, i64 y_stride, const T *x, i64 x_stride, const float *cosines, const float *sines, const i32 *positions,  \
        i64 tokens, i64 heads, i64 width, i64 inverse) {                                                               \
        rotate(y, y_stride, x, x_stride, cosines, sines, positions, tokens, heads, width, inverse);                    \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
