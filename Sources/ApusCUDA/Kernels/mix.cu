// Two branches mixed with weights of each token, and the gradient. See Ops/Mix.swift; PR-MoE, DeepSpeed-MoE section
// 3.1.
//
// Launch: "rows" for T rows of D. The floor is the bytes: a, b and y once; dy, a, b, da and db once backward.

#include "reduce.cuh"

/// y[t] = weights[t, 0] * a[t] + weights[t, 1] * b[t].
template <class T>
inline void mix_rows(
    T *y, i64 y_stride, const T *a, i64 a_stride, const T *b, i64 b_stride, const float *weights, i64 rows,
    i64 width) {
    const i64 row = row_index();
    if (row >= rows) return;
    const float first = weights[2 * row], second = weights[2 * row + 1];
    const bool vector = is_aligned(y, y_stride) && is_aligned(a, a_stride) && is_aligned(b, b_stride);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u, v;
        load(u, a + row * a_stride + i, left, vector);
        load(v, b + row * b_stride + i, left, vector);
        each(u, [&](int l) { return first * u.x[l] + second * v.x[l]; });
        store(y + row * y_stride + i, u, left, vector);
    });
}

/// da[t] = weights[t, 0] * dy[t], db[t] = weights[t, 1] * dy[t], dweights[t] = (dot(a[t], dy[t]), dot(b[t], dy[t])).
template <class T>
inline void mix_rows_backward(
    T *da, i64 da_stride, T *db, i64 db_stride, float *dweights, const T *dy, i64 dy_stride, const T *a, i64 a_stride,
    const T *b, i64 b_stride, const float *weights, i64 rows, i64 width) {
    const i64 row = row_index(), extent = row < rows ? width : 0;
    const float first = extent ? weights[2 * row] : 0, second = extent ? weights[2 * row + 1] : 0;
    const bool vector = is_aligned(da, da_stride) && is_aligned(db, db_stride) && is_aligned(dy, dy_stride)
        && is_aligned(a, a_stride) && is_aligned(b, b_stride);
    float first_dot = 0, second_dot = 0;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes d, u, v;
        load(d, dy + row * dy_stride + i, left, vector);
        load(u, a + row * a_stride + i, left, vector);
        load(v, b + row * b_stride + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
            first_dot += d.x[l] * u.x[l];
            second_dot += d.x[l] * v.x[l];
            u.x[l] = first * d.x[l];
            v.x[l] = second * d.x[l];
        }
        store(da + row * da_stride + i, u, left, vector);
        store(db + row * db_stride + i, v, left, vector);
    });
    first_dot = row_sum(first_dot);
    second_dot = row_sum(second_dot);
    if (extent && threadIdx.x == 0) {
        dweights[2 * row] = first_dot;
        dweights[2 * row + 1] = second_dot;
    }
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void mix_rows_##suffix(                                                                      \
        T *y, i64 y_stride, const T *a, i64 a_stride, const T *b, i64 b_stride, const float *weights, i64 rows,        \
        i64 width) {                                                                                                   \
        mix_rows(y, y_stride, a, a_stride, b, b_stride, weights, rows, width);                                         \
    }                                                                                                                  \
    extern "C" __global__ void mix_rows_backward_##suffix(                                                             \
        T *da, i64 da_stride, T *db, i64 db_stride, float *dweights, const T *dy, i64 dy_stride, const T *a,           \
        i64 a_stride, const T *b, i64 b_stride, const float *weights, i64 rows, i64 width) {                           \
        mix_rows_backward(                                                                                             \
            da, da_stride, db, db_stride, dweights, dy, dy_stride, a, a_stride, b, b_stride, weights, rows, width);    \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
