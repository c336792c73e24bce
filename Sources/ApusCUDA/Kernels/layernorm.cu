// LayerNorm and its gradient. See Ops/Norm.swift; Ba et al. 2016.
//
// Rows, launches and the floor are those of rmsnorm.cu. The variance takes a second pass over the row in cache, because
// E[x^2] - E[x]^2 would cancel for rows far from zero.

#include "reduce.cuh"

inline i64 row_start(i64 row, i64 heads, i64 token_stride, i64 head_stride) {
    const i64 token = row / heads;
    return token * token_stride + (row - token * heads) * head_stride;
}

/// `mean`, `rstd` and `bias` may be null. Launch "rows".
template <class T>
inline void layernorm(
    T *y, i64 y_token, i64 y_head, float *mean, float *rstd, const T *x, i64 x_token, i64 x_head, const T *weight,
    const T *bias, i64 tokens, i64 heads, i64 width, float epsilon) {
    const i64 row = row_index(), extent = row < tokens * heads ? width : 0;
    const T *in = x + row_start(row, heads, x_token, x_head);
    T *out = y + row_start(row, heads, y_token, y_head);
    const bool vector = is_aligned(in, width) && is_aligned(out) && is_aligned(weight) && is_aligned(bias);
    float sum = 0, squares = 0;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u;
        load(u, in + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) sum += u.x[l];
    });
    const float m = row_sum(sum) / (float)width;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u;
        load(u, in + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) squares += l < left ? (u.x[l] - m) * (u.x[l] - m) : 0.0f;
    });
    const float r = 1.0f / sqrtf(row_sum(squares) / (float)width + epsilon);
    if (mean && extent && threadIdx.x == 0) mean[row] = m;
    if (rstd && extent && threadIdx.x == 0) rstd[row] = r;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u, w, b = {};
        load(u, in + i, left, vector);
        load(w, weight + i, left, vector);
        if (bias) load(b, bias + i, left, vector);
        each(u, [&](int l) { return (u.x[l] - m) * r * w.x[l] + b.x[l]; });
        store(out + i, u, left, vector);
    });
}

/// Adds to sums in shared memory, in vectors where they are aligned: element by element, banks would collide eightfold.
inline void add_to(float *sums, const Lanes &x, i64 left) {
    Lanes total;
    load(total, sums, left, is_aligned(sums));
    each(total, [&](int l) { return total.x[l] + x.x[l]; });
    store(sums, total, left, is_aligned(sums));
}

/// With n = (x - mean) * rstd and g = dy * weight: dx = rstd * (g - mean(g) - n * mean(g * n)).
///
/// `partials` (2, blocks, width), or null: sums of dy * n, then of dy, over each block's rows. Launch "row runs" with
/// shared memory 2 * blockDim.y * width floats; `add_partials` adds either half to its gradient.
template <class T>
inline void layernorm_backward(
    T *dx, i64 dx_token, i64 dx_head, float *partials, const T *dy, i64 dy_token, i64 dy_head, const T *x, i64 x_token,
    i64 x_head, const T *weight, const float *mean, const float *rstd, i64 tokens, i64 heads, i64 width, i64 adds) {
    extern __shared__ float sums[];
    float *weights = sums + 2 * threadIdx.y * width, *biases = weights + width;
    const i64 rows = tokens * heads, per_block = (rows + gridDim.x - 1) / gridDim.x;
    const i64 begin = blockIdx.x * per_block, end = min(rows, begin + per_block);
    if (partials) {
        for (i64 i = threadIdx.x * lanes; i < width; i += blockDim.x * lanes) {
            for (i64 l = i; l < min(width, i + lanes); ++l) weights[l] = biases[l] = 0;
        }
    }
    for (i64 first = begin; first < end; first += blockDim.y) {
        const i64 row = first + threadIdx.y, extent = row < end ? width : 0;
        const T *gradient = dy + row_start(row, heads, dy_token, dy_head);
        const T *in = x + row_start(row, heads, x_token, x_head);
        T *out = dx + row_start(row, heads, dx_token, dx_head);
        const bool vector = is_aligned(gradient, width) && is_aligned(in) && is_aligned(out) && is_aligned(weight);
        const float m = extent ? mean[row] : 0, r = extent ? rstd[row] : 0;
        float sum = 0, product = 0;
        // Lanes past the end hold dy = 0, so they add nothing.
        each_row_group(extent, [&](i64 i, i64 left) {
            Lanes g, n, w;
            load(g, gradient + i, left, vector);
            load(n, in + i, left, vector);
            load(w, weight + i, left, vector);
#pragma unroll
            for (int l = 0; l < lanes; ++l) {
                n.x[l] = g.x[l] * ((n.x[l] - m) * r);
                sum += g.x[l] * w.x[l];
                product += n.x[l] * w.x[l];
            }
            if (!partials) return;
            add_to(weights + i, n, left);
            add_to(biases + i, g, left);
        });
        const float mean_g = row_sum(sum) / (float)width, mean_gn = row_sum(product) / (float)width;
        each_row_group(extent, [&](i64 i, i64 left) {
            Lanes g, n, w, old = {};
            load(g, gradient + i, left, vector);
            load(n, in + i, left, vector);
            load(w, weight + i, left, vector);
            if (adds) load(old, out + i, left, vector);
            each(g, [&](int l) {
                return r * (g.x[l] * w.x[l] - mean_g - (n.x[l] - m) * r * mean_gn) + old.x[l];
            });
            store(out + i, g, left, vector);
        });
    }
    if (!partials) return;
    __syncthreads();
    for (i64 i = threadIdx.y * blockDim.x + threadIdx.x; i < 2 * width; i += blockDim.x * blockDim.y) {
        float sum = 0;
        for (u32 y = 0; y < blockDim.y; ++y) sum += sums[2 * y * width + i];
        const i64 half = i / width;
        partials[(half * gridDim.x + blockIdx.x) * width + i - half * width] = sum;
    }
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void layernorm_##suffix(                                                                     \
        T *y, i64 y_token, i64 y_head, float *mean, float *rstd, const T *x, i64 x_token, i64 x_head, const T *weight, \
        const T *bias, i64 tokens, i64 heads, i64 width, float epsilon) {                                              \
        layernorm(y, y_token, y_head, mean, rstd, x, x_token, x_head, weight, bias, tokens, heads, width, epsilon);    \
    }                                                                                                                  \
    extern "C" __global__ void layernorm_backward_##suffix(                                                            \
        T *dx, i64 dx_token, i64 dx_head, float *partials, const T *dy, i64 dy_token, i64 dy_head, const T *x,         \
        i64 x_token, i64 x_head, const T *weight, const float *mean, const float *rstd, i64 tokens, i64 heads,         \
        i64 width, i64 adds) {                                                                                         \
        layernorm_backward(                                                                                            \
            dx, dx_token, dx_head, partials, dy, dy_token, dy_head, x, x_token, x_head, weight, mean, rstd, tokens,    \
            heads, width, adds);                                                                                       \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
