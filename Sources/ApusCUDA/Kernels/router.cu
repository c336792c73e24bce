// The arithmetic of routers, in f32: softmax, logistic, log-sum-exp, top-K. See Ops/Router.swift.
//
// T rows of E scores, a warp to a row, so that a row's sums take one order whatever the launch. Launch: "warps" for T
// rows; "flat" for the logistic. The floor is the bytes, a few megabytes: launches cost more than the work.

#include "reduce.cuh"

inline i64 warp_index() { return ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32; }
inline int lane_index() { return threadIdx.x % 32; }

/// The largest of a row's elements, NaN passed over; the base of exponentials is 0 for a row of nothing but -infinity.
inline float row_top(const float *x, i64 width) {
    float top = -infinity;
    for (i64 i = lane_index(); i < width; i += 32) top = fmaxf(top, x[i]);
    top = warp_max(top);
    return top > -infinity ? top : 0.0f;
}

extern "C" __global__ void softmax(float *y, i64 y_stride, const float *x, i64 x_stride, i64 rows, i64 width) {
    const i64 row = warp_index();
    if (row >= rows) return;
    const float *in = x + row * x_stride;
    float *out = y + row * y_stride;
    const float top = row_top(in, width);
    float sum = 0;
    for (i64 i = lane_index(); i < width; i += 32) {
        const float e = expf(in[i] - top);
        sum += e;
        out[i] = e;
    }
    sum = warp_sum(sum);
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (i64 i = lane_index(); i < width; i += 32) out[i] *= inverse;
}

/// dx = y * (dy - sum(y * dy)); dx may be dy.
extern "C" __global__ void softmax_backward(
    float *dx, i64 dx_stride, const float *dy, i64 dy_stride, const float *y, i64 y_stride, i64 rows, i64 width) {
    const i64 row = warp_index();
    if (row >= rows) return;
    const float *d = dy + row * dy_stride, *p = y + row * y_stride;
    float sum = 0;
    for (i64 i = lane_index(); i < width; i += 32) sum += d[i] * p[i];
    sum = warp_sum(sum);
    for (i64 i = lane_index(); i < width; i += 32) dx[row * dx_stride + i] = p[i] * (d[i] - sum);
}

/// result[t] = log(sum(exp(x[t]))).
extern "C" __global__ void log_sum_exp(float *result, const float *x, i64 x_stride, i64 rows, i64 width) {
    const i64 row = warp_index();
    if (row >= rows) return;
    const float *in = x + row * x_stride, top = row_top(in, width);
    float sum = 0;
    for (i64 i = lane_index(); i < width; i += 32) sum += expf(in[i] - top);
    sum = warp_sum(sum);
    if (lane_index() == 0) result[row] = sum == 0.0f ? -infinity : top + logf(sum);
}

extern "C" __global__ void sigmoid(float *y, const float *x, i64 n) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        y[i] = 1.0f / (1.0f + expf(-x[i]));
    }
}

/// dx = dy * y * (1 - y).
extern "C" __global__ void sigmoid_backward(float *dx, const float *dy, const float *y, i64 n) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        dx[i] = dy[i] * (y[i] * (1.0f - y[i]));
    }
}

/// An integer that orders like the score: -0 equals +0, and NaN ranks above `taken` and below minus infinity.
inline i32 ordered_key(float score) {
    const i32 bits = __float_as_int(score + 0.0f);
    return score != score ? (i32)0x80000001 : bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

/// The K highest of each row's scores plus `bias` (E) or null, highest first, ties to the lowest id; `values` (T, K) or
/// null gets the scores without the bias. A lane holds the keys of `per_lane` experts, lane + 32 * i; each round takes
/// the largest key over the warp, and of its lanes the one with the lowest id.
template <int per_lane>
inline void top_k(
    i32 *ids, float *values, const float *scores, i64 stride, const float *bias, i64 rows, i64 experts, i64 choices) {
    // A chosen or missing position; no score has this key.
    const i32 taken = (i32)0x80000000;
    const i64 row = warp_index();
    if (row >= rows) return;
    const float *in = scores + row * stride;
    i32 keys[per_lane];
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const int expert = lane_index() + 32 * i;
        keys[i] = expert < experts ? ordered_key(in[expert] + (bias ? bias[expert] : 0.0f)) : taken;
    }
    for (i64 k = 0; k < choices; ++k) {
        i32 best = keys[0];
        u32 where = lane_index();
#pragma unroll
        for (int i = 1; i < per_lane; ++i) {
            if (keys[i] > best) best = keys[i], where = lane_index() + 32 * i;
        }
        const i32 top = __reduce_max_sync(all_lanes, best);
        const u32 id = __reduce_min_sync(all_lanes, best == top ? where : 0xFFFFFFFFu);
#pragma unroll
        for (int i = 0; i < per_lane; ++i) {
            if (id == lane_index() + 32 * i) keys[i] = taken;
        }
        if (lane_index() == 0) {
            ids[row * choices + k] = (i32)id;
            if (values) values[row * choices + k] = in[id];
        }
    }
}

/// Named by the most experts: take the smallest that holds E.
#define DEFINE(most)                                                                                                   \
    extern "C" __global__ void top_k_##most(                                                                           \
        i32 *ids, float *values, const float *scores, i64 stride, const float *bias, i64 rows, i64 experts,            \
        i64 choices) {                                                                                                 \
        top_k<most / 32>(ids, values, scores, stride, bias, rows, experts, choices);                                   \
    }
DEFINE(32)
DEFINE(64)
DEFINE(128)
DEFINE(256)
DEFINE(1024)
