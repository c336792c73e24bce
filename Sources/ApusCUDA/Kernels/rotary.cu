// Rotary position embedding of the end of each head: element i of what is turned paired with i + width / 2, or elements
// 2 i and 2 i + 1. See Ops/Rotary.swift; Su et al., RoFormer.
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

/// One head of a token: its elements from `*_skipped` on, `width` of them. Heads of y are the rows; an x_head_stride of 0
/// gives all of them the same elements.
template <class T>
inline void rotate(
    T *y, i64 y_stride, i64 y_head_stride, i64 y_skipped, const T *x, i64 x_stride, i64 x_head_stride, i64 x_skipped,
    const float *cosines, const float *sines, const i32 *positions, i64 tokens, i64 heads, i64 width, i64 neighbours,
    i64 inverse) {
    const i64 row = row_index();
    if (row >= tokens * heads) return;
    const i64 token = row / heads, head = row - token * heads, pairs = width / 2;
    const T *in = x + token * x_stride + head * x_head_stride + x_skipped;
    T *out = y + token * y_stride + head * y_head_stride + y_skipped;
    const float *cosine = cosines + positions[token] * pairs, *sine = sines + positions[token] * pairs;
    const float sign = inverse ? -1.0f : 1.0f;
    if (neighbours) {
        each_row_group(pairs, [&](i64 i, i64 left) {
            for (i64 l = i; l < i + (left < lanes ? left : lanes); ++l) {
                const float a = to_float(in[2 * l]), b = to_float(in[2 * l + 1]), s = sine[l] * sign;
                out[2 * l] = from_float<T>(a * cosine[l] - b * s);
                out[2 * l + 1] = from_float<T>(b * cosine[l] + a * s);
            }
        });
        return;
    }
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
        T *y, i64 y_stride, i64 y_head_stride, i64 y_skipped, const T *x, i64 x_stride, i64 x_head_stride,             \
        i64 x_skipped, const float *cosines, const float *sines, const i32 *positions, i64 tokens, i64 heads,          \
        i64 width, i64 neighbours, i64 inverse) {                                                                      \
        rotate(y, y_stride, y_head_stride, y_skipped, x, x_stride, x_head_stride, x_skipped, cosines, sines,           \
               positions, tokens, heads, width, neighbours, inverse);                                                  \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
