// The gated short convolution of hybrid blocks, and its gradient. See Ops/ShortConvolution.swift.
//
// A row of x is [b | c | v], C wide each; taps (W, C) are dense; row t reads reach(t) = min(positions[t], W - 1, t) rows
// before it. Launch: "rows" for T rows of C. The floor is the bytes: x once and y once forward, for the rows before are in
// cache; x, dy and dx once backward, x and dy once more for the taps.

#include "reduce.cuh"

inline i64 reach_of(const i32 *positions, i64 t, i64 taps) { return min((i64)positions[t], min(taps - 1, t)); }

template <class T>
inline void short_convolution(
    T *y, i64 y_stride, const T *x, i64 x_stride, const T *taps, const i32 *positions, i64 rows, i64 width,
    i64 tap_count) {
    const i64 t = row_index();
    if (t >= rows) return;
    const T *row = x + t * x_stride;
    const i64 reach = reach_of(positions, t, tap_count);
    const bool vector = is_aligned(x, x_stride) && is_aligned(y, y_stride) && is_aligned(taps, width);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes sum = {}, tap, inner, value;
        for (i64 j = 0; j <= reach; ++j) {
            const T *earlier = row - j * x_stride + i;
            load(tap, taps + j * width + i, left, vector);
            load(inner, earlier + width, left, vector);
            load(value, earlier + 2 * width, left, vector);
            each(sum, [&](int l) { return sum.x[l] + tap.x[l] * (inner.x[l] * value.x[l]); });
        }
        load(value, row + i, left, vector);
        each(sum, [&](int l) { return value.x[l] * sum.x[l]; });
        store(y + t * y_stride + i, sum, left, vector);
    });
}

/// db = dy * the gated sum; du[t] = the sum of taps[j] * dy[t + j] * b[t + j] over the rows that read t; dc = du * v and
/// dv = du * c.
template <class T>
inline void short_convolution_backward(
    T *dx, i64 dx_stride, const T *dy, i64 dy_stride, const T *x, i64 x_stride, const T *taps, const i32 *positions,
    i64 rows, i64 width, i64 tap_count) {
    const i64 t = row_index();
    if (t >= rows) return;
    const T *row = x + t * x_stride, *gradient = dy + t * dy_stride;
    T *out = dx + t * dx_stride;
    const i64 reach = reach_of(positions, t, tap_count);
    const bool vector = is_aligned(x, x_stride) && is_aligned(dx, dx_stride) && is_aligned(dy, dy_stride)
        && is_aligned(taps, width);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes sum = {}, du = {}, tap, first, second;
        for (i64 j = 0; j <= reach; ++j) {
            const T *earlier = row - j * x_stride + i;
            load(tap, taps + j * width + i, left, vector);
            load(first, earlier + width, left, vector);
            load(second, earlier + 2 * width, left, vector);
            each(sum, [&](int l) { return sum.x[l] + tap.x[l] * (first.x[l] * second.x[l]); });
        }
        load(first, gradient + i, left, vector);
        each(sum, [&](int l) { return first.x[l] * sum.x[l]; });
        store(out + i, sum, left, vector);
        for (i64 j = 0; j < tap_count && t + j < rows; ++j) {
            if (reach_of(positions, t + j, tap_count) < j) continue;
            load(tap, taps + j * width + i, left, vector);
            load(first, gradient + j * dy_stride + i, left, vector);
            load(second, row + j * x_stride + i, left, vector);
            each(du, [&](int l) { return du.x[l] + tap.x[l] * (first.x[l] * second.x[l]); });
        }
        load(first, row + width + i, left, vector);
        load(second, row + 2 * width + i, left, vector);
        each(second, [&](int l) { return du.x[l] * second.x[l]; });
        store(out + width + i, second, left, vector);
        each(first, [&](int l) { return du.x[l] * first.x[l]; });
        store(out + 2 * width + i, first, left, vector);
    });
}

/// partials[block, j] = the sum over 128 rows of dy * b * (c v)[t - j], in row order: a thread for each channel.
template <class T>
inline void short_convolution_taps(
    float *partials, const T *dy, i64 dy_stride, const T *x, i64 x_stride, const i32 *positions, i64 rows, i64 width,
    i64 tap_count) {
    const i64 column = (i64)blockIdx.x * blockDim.x + threadIdx.x, j = blockIdx.z;
    if (column >= width) return;
    const i64 begin = blockIdx.y * 128LL, end = min(rows, begin + 128);
    float sum = 0;
    for (i64 t = begin; t < end; ++t) {
        if (reach_of(positions, t, tap_count) < j) continue;
        const T *row = x + t * x_stride + column, *earlier = row - j * x_stride;
        sum += to_float(dy[t * dy_stride + column]) * to_float(row[0])
            * (to_float(earlier[width]) * to_float(earlier[2 * width]));
    }
    partials[(blockIdx.y * tap_count + j) * width + column] = sum;
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void short_convolution_##suffix(                                                             \
        T *y, i64 y_stride, const T *x, i64 x_stride, const T *taps, const i32 *positions, i64 rows, i64 width,        \
        i64 tap_count) {                                                                                               \
        short_convolution(y, y_stride, x, x_stride, taps, positions, rows, width, tap_count);                          \
    }                                                                                                                  \
    extern "C" __global__ void short_convolution_backward_##suffix(                                                    \
        T *dx, i64 dx_stride, const T *dy, i64 dy_stride, const T *x, i64 x_stride, const T *taps,                     \
        const i32 *positions, i64 rows, i64 width, i64 tap_count) {                                                    \
        short_convolution_backward(                                                                                    \
            dx, dx_stride, dy, dy_stride, x, x_stride, taps, positions, rows, width, tap_count);                       \
    }                                                                                                                  \
    extern "C" __global__ void short_convolution_taps_##suffix(                                                        \
        float *partials, const T *dy, i64 dy_stride, const T *x, i64 x_stride, const i32 *positions, i64 rows,         \
        i64 width, i64 tap_count) {                                                                                    \
        short_convolution_taps(partials, dy, dy_stride, x, x_stride, positions, rows, width, tap_count);               \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
