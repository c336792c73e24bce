// RMSNorm, plain and after a residual addition, and its gradient. See Ops/Norm.swift; Zhang and Sennrich 2019.
//
// A row is (token, head): element i of it is x[token * x_token + head * x_head + i]. Launch: "rows" for tokens * heads
// rows of `width`. Statistics are f32. A row is read twice, the second time from cache, so the floor is x and y once
// each (forward; x, residual, sum and y with the addition) and dy, x and dx once each (backward).

#include "reduce.cuh"

/// Where a row of (tokens, heads, width) begins.
inline i64 row_start(i64 row, i64 heads, i64 token_stride, i64 head_stride) {
    const i64 token = row / heads;
    return token * token_stride + (row - token * heads) * head_stride;
}

template <class T>
inline void rmsnorm(
    T *y, i64 y_token, i64 y_head, float *rstd, const T *x, i64 x_token, i64 x_head, const T *weight, i64 tokens,
    i64 heads, i64 width, float epsilon) {
    const i64 row = row_index(), extent = row < tokens * heads ? width : 0;
    const T *in = x + row_start(row, heads, x_token, x_head);
    T *out = y + row_start(row, heads, y_token, y_head);
    const bool vector = is_aligned(in, width) && is_aligned(out) && is_aligned(weight);
    float squares = 0;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u;
        load(u, in + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) squares += u.x[l] * u.x[l];
    });
    const float r = 1.0f / sqrtf(row_sum(squares) / (float)width + epsilon);
    if (rstd && extent && threadIdx.x == 0) rstd[row] = r;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u, w;
        load(u, in + i, left, vector);
        load(w, weight + i, left, vector);
        each(u, [&](int l) { return u.x[l] * r * w.x[l]; });
        store(out + i, u, left, vector);
    });
}

/// The statistics are those of the stored sum, which is what the backward reads.
template <class T>
inline void add_rmsnorm(
    T *y, i64 y_stride, T *sum, i64 sum_stride, float *rstd, const T *x, i64 x_stride, const T *residual,
    i64 residual_stride, const T *weight, i64 rows, i64 width, float epsilon) {
    const i64 row = row_index(), extent = row < rows ? width : 0;
    const T *a = x + row * x_stride, *b = residual + row * residual_stride;
    T *s = sum + row * sum_stride, *out = y + row * y_stride;
    const bool vector =
        is_aligned(a, width) && is_aligned(b) && is_aligned(s) && is_aligned(out) && is_aligned(weight);
    float squares = 0;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u, v;
        load(u, a + i, left, vector);
        load(v, b + i, left, vector);
        each(u, [&](int l) { return to_float(from_float<T>(u.x[l] + v.x[l])); });
        store(s + i, u, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) squares += u.x[l] * u.x[l];
    });
    const float r = 1.0f / sqrtf(row_sum(squares) / (float)width + epsilon);
    if (rstd && extent && threadIdx.x == 0) rstd[row] = r;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u, w;
        load(u, s + i, left, vector);
        load(w, weight + i, left, vector);
        each(u, [&](int l) { return u.x[l] * r * w.x[l]; });
        store(out + i, u, left, vector);
    });
}

/// With n = x * rstd and g = dy * weight: dx = rstd * (g - n * mean(g * n)), and partials gets the sums of dy * n.
///
/// Each block takes a run of rows and, when `partials` (blocks, width) is given, sums the weight's gradient over them
/// in shared memory, each thread the columns that it reads: launch "row runs", shared memory blockDim.y * width floats.
/// `add_partials` of reduce.cu adds the blocks' sums to the gradient.
template <class T>
inline void rmsnorm_backward(
    T *dx, i64 dx_token, i64 dx_head, float *partials, const T *dy, i64 dy_token, i64 dy_head, const T *x, i64 x_token,
    i64 x_head, const T *weight, const float *rstd, i64 tokens, i64 heads, i64 width, i64 adds) {
    extern __shared__ float sums[];
    float *mine = sums + threadIdx.y * width;
    const i64 rows = tokens * heads, per_block = (rows + gridDim.x - 1) / gridDim.x;
    const i64 begin = blockIdx.x * per_block, end = min(rows, begin + per_block);
    if (partials) {
        for (i64 i = threadIdx.x * lanes; i < width; i += blockDim.x * lanes) {
            for (i64 l = i; l < min(width, i + lanes); ++l) mine[l] = 0;
        }
    }
    for (i64 first = begin; first < end; first += blockDim.y) {
        const i64 row = first + threadIdx.y, extent = row < end ? width : 0;
        const T *gradient = dy + row_start(row, heads, dy_token, dy_head);
        const T *in = x + row_start(row, heads, x_token, x_head);
        T *out = dx + row_start(row, heads, dx_token, dx_head);
        const bool vector = is_aligned(gradient, width) && is_aligned(in) && is_aligned(out) && is_aligned(weight);
        const float r = extent ? rstd[row] : 0;
        float sum = 0;
        each_row_group(extent, [&](i64 i, i64 left) {
            Lanes g, n, w, total;
            load(g, gradient + i, left, vector);
            load(n, in + i, left, vector);
            load(w, weight + i, left, vector);
#pragma unroll
            for (int l = 0; l < lanes; ++l) {
                g.x[l] *= n.x[l] * r;
                sum += g.x[l] * w.x[l];
            }
            if (!partials) return;
            // In vectors where they are aligned: element by element, banks would collide eightfold.
            load(total, mine + i, left, is_aligned(mine));
            each(total, [&](int l) { return total.x[l] + g.x[l]; });
            store(mine + i, total, left, is_aligned(mine));
        });
        const float mean = row_sum(sum) / (float)width;
        each_row_group(extent, [&](i64 i, i64 left) {
            Lanes g, n, w, old = {};
            load(g, gradient + i, left, vector);
            load(n, in + i, left, vector);
            load(w, weight + i, left, vector);
            if (adds) load(old, out + i, left, vector);
            each(g, [&](int l) { return r * (g.x[l] * w.x[l] - n.x[l] * r * mean) + old.x[l]; });
            store(out + i, g, left, vector);
        });
    }
    if (!partials) return;
    __syncthreads();
    for (i64 i = threadIdx.y * blockDim.x + threadIdx.x; i < width; i += blockDim.x * blockDim.y) {
        float sum = 0;
        for (u32 y = 0; y < blockDim.y; ++y) sum += sums[y * width + i];
        partials[blockIdx.x * width + i] = sum;
    }
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void rmsnorm_##suffix(                                                                       \
        T *y, i64 y_token, i64 y_head, float *rstd, const T *x, i64 x_token, i64 x_head, const T *weight, i64 tokens,  \
        i64 heads, i64 width, float epsilon) {                                                                         \
        rmsnorm(y, y_token, y_head, rstd, x, x_token, x_head, weight, tokens, heads, width, epsilon);                  \
    }                                                                                                                  \
    extern "C" __global__ void add_rmsnorm_##suffix(                                                                   \
        T *y, i64 y_stride, T *sum, i64 sum_stride, float *rstd, const T *x, i64 x_stride, const T *residual,          \
        i64 residual_stride, const T *weight, i64 rows, i64 width, float epsilon) {                                    \
        add_rmsnorm(                                                                                                   \
            y, y_stride, sum, sum_stride, rstd, x, x_stride, residual, residual_stride, weight, rows, width, epsilon); \
    }                                                                                                                  \
    extern "C" __global__ void rmsnorm_backward_##suffix(                                                              \
        T *dx, i64 dx_token, i64 dx_head, float *partials, const T *dy, i64 dy_token, i64 dy_head, const T *x,         \
        i64 x_token, i64 x_head, const T *weight, const float *rstd, i64 tokens, i64 heads, i64 width, i64 adds) {     \
        rmsnorm_backward(                                                                                              \
            dx, dx_token, dx_head, partials, dy, dy_token, dy_head, x, x_token, x_head, weight, rstd, tokens, heads,   \
            width, adds);                                                                                              \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
