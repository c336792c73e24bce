// Moving rows between token order and expert order, and summing the K rows of a token. See Ops/RoutedRows.swift.
//
// Slot t * K + k is choice k of token t; a row of -1 means none. No atomics: each token gathers its own rows, in the
// order of k. Floors, in bytes: gather, R D read and written; combine, R D read and T D written; its gradient, T D and
// R D read, R D written.

#include "reduce.cuh"

/// y[r] = scale[r] * x[index[r]]; -1 gives zeros, `scale` may be null. Launch "rows".
template <class T>
inline void gather_rows(
    T *y, i64 y_stride, const T *x, i64 x_stride, const i32 *index, const float *scale, i64 rows, i64 width) {
    const i64 row = row_index();
    if (row >= rows) return;
    const i64 source = index[row];
    const float factor = source >= 0 && scale ? scale[row] : 1.0f;
    const T *in = x + source * x_stride;
    T *out = y + row * y_stride;
    const bool vector = is_aligned(x, x_stride) && is_aligned(out);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u = {};
        if (source >= 0) load(u, in + i, left, vector);
        if (source >= 0 && scale) each(u, [&](int l) { return u.x[l] * factor; });
        store(out + i, u, left, vector);
    });
}

/// rows[slot_to_row[t, k]] = x[t]: a gather through the inverse map, which reads each token once instead of K times.
/// Launch "rows" for T rows.
template <class T>
inline void scatter_rows(
    T *y, i64 y_stride, const T *x, i64 x_stride, const i32 *slot_to_row, i64 tokens, i64 choices, i64 width) {
    const i64 token = row_index();
    if (token >= tokens) return;
    const T *in = x + token * x_stride;
    const bool vector = is_aligned(in) && is_aligned(y, y_stride);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u;
        load(u, in + i, left, vector);
        for (i64 k = 0; k < choices; ++k) {
            const i64 row = slot_to_row[token * choices + k];
            if (row >= 0) store(y + row * y_stride + i, u, left, vector);
        }
    });
}

/// y[t] (+)= the sum over k of weights[t, k] * rows[slot_to_row[t, k]]; `weights` may be null for ones. Launch "rows"
/// for T rows. Unrolling the choices puts the loads of several rows in flight before the first sum.
template <class T>
inline void combine_rows(
    T *y, i64 y_stride, const T *rows, i64 rows_stride, const i32 *slot_to_row, const float *weights, i64 tokens,
    i64 choices, i64 width, i64 adds) {
    const i64 token = row_index();
    if (token >= tokens) return;
    T *out = y + token * y_stride;
    const bool vector = is_aligned(out) && is_aligned(rows, rows_stride);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes sum = {};
        if (adds) load(sum, out + i, left, vector);
#pragma unroll 4
        for (i64 k = 0; k < choices; ++k) {
            const i64 slot = token * choices + k, row = slot_to_row[slot];
            Lanes u = {};
            if (row >= 0) load(u, rows + row * rows_stride + i, left, vector);
            const float factor = row < 0 ? 0.0f : weights ? weights[slot] : 1.0f;
            each(sum, [&](int l) { return sum.x[l] + factor * u.x[l]; });
        }
        store(out + i, sum, left, vector);
    });
}

/// drows[row] = weights[t, k] * dy[t] and dweights[t, k] = dot(rows[row], dy[t]), 0 for a slot without a row. Launch
/// "rows" for T rows. `drows`, `weights` and `dweights` may be null; drows may be rows, whose element is read before it
/// is written.
template <class T>
inline void combine_rows_backward(
    T *drows, i64 drows_stride, float *dweights, const T *dy, i64 dy_stride, const T *rows, i64 rows_stride,
    const i32 *slot_to_row, const float *weights, i64 tokens, i64 choices, i64 width) {
    const i64 token = row_index(), extent = token < tokens ? width : 0;
    const T *gradient = dy + token * dy_stride;
    const bool vector = is_aligned(gradient) && is_aligned(drows, drows_stride) && is_aligned(rows, rows_stride);
    for (i64 k = 0; k < choices; ++k) {
        const i64 slot = token * choices + k, row = extent ? slot_to_row[slot] : -1;
        const float factor = row >= 0 && weights ? weights[slot] : 1.0f;
        float product = 0;
        each_row_group(row < 0 ? 0 : width, [&](i64 i, i64 left) {
            Lanes d, u;
            load(d, gradient + i, left, vector);
            if (dweights) {
                load(u, rows + row * rows_stride + i, left, vector);
#pragma unroll
                for (int l = 0; l < lanes; ++l) product += d.x[l] * u.x[l];
            }
            if (!drows) return;
            each(d, [&](int l) { return d.x[l] * factor; });
            store(drows + row * drows_stride + i, d, left, vector);
        });
        if (!dweights) continue;
        product = row_sum(product);
        if (extent && threadIdx.x == 0) dweights[slot] = product;
    }
}

/// y[i] = x[index[i]], rows of a single element; -1 gives 0. Launch ceil(n / 256), 256.
extern "C" __global__ void gather_values_f32(float *y, const float *x, const i32 *index, i64 n) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = index[i] < 0 ? 0.0f : x[index[i]];
}

/// y[r] = the sum of x[r], in order. Launch ceil(rows / 256), 256.
extern "C" __global__ void sum_of_rows_f32(float *y, const float *x, i64 rows, i64 width) {
    const i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float sum = 0;
#pragma unroll 8
    for (i64 i = 0; i < width; ++i) sum += x[row * width + i];
    y[row] = sum;
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void gather_rows_##suffix(                                                                   \
        T *y, i64 y_stride, const T *x, i64 x_stride, const i32 *index, const float *scale, i64 rows, i64 width) {     \
        gather_rows(y, y_stride, x, x_stride, index, scale, rows, width);                                              \
    }                                                                                                                  \
    extern "C" __global__ void scatter_rows_##suffix(                                                                  \
        T *y, i64 y_stride, const T *x, i64 x_stride, const i32 *slot_to_row, i64 tokens, i64 choices, i64 width) {    \
        scatter_rows(y, y_stride, x, x_stride, slot_to_row, tokens, choices, width);                                   \
    }                                                                                                                  \
    extern "C" __global__ void combine_rows_##suffix(                                                                  \
        T *y, i64 y_stride, const T *rows, i64 rows_stride, const i32 *slot_to_row, const float *weights, i64 tokens,  \
        i64 choices, i64 width, i64 adds) {                                                                            \
        combine_rows(y, y_stride, rows, rows_stride, slot_to_row, weights, tokens, choices, width, adds);              \
    }                                                                                                                  \
    extern "C" __global__ void combine_rows_backward_##suffix(                                                         \
        T *drows, i64 drows_stride, float *dweights, const T *dy, i64 dy_stride, const T *rows, i64 rows_stride,       \
        const i32 *slot_to_row, const float *weights, i64 tokens, i64 choices, i64 width) {                            \
        combine_rows_backward(                                                                                         \
            drows, drows_stride, dweights, dy, dy_stride, rows, rows_stride, slot_to_row, weights, tokens, choices,    \
            width);                                                                                                    \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
