// The arithmetic of routers, in f32: softmax, logistic, log-sum-exp, top-K. See Ops/Router.swift.
//
// T rows of E scores, a warp to a row, so that a row's sums take one order whatever the launch. Launch: "warps" for T
// rows; "flat" for the logistic. The floor is the bytes, a few megabytes: launches cost more than the work.
//
// expert_choice.cu makes the same scores, bit for bit: `__fadd_rn` is never fused with the product that it adds.

#include "choice.cuh"

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
        sum = __fadd_rn(sum, e);
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
        y[i] = 1.0f / __fadd_rn(1.0f, expf(-x[i]));
    }
}

/// dx = dy * y * (1 - y).
extern "C" __global__ void sigmoid_backward(float *dx, const float *dy, const float *y, i64 n) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        dx[i] = dy[i] * (y[i] * (1.0f - y[i]));
    }
}

/// The K highest of each row's scores plus `bias` (E) or null, highest first, ties to the lowest id; `values` (T, K) or
/// null gets the scores without the bias.
template <int per_lane>
inline void top_k(
    i32 *ids, float *values, const float *scores, i64 stride, const float *bias, i64 rows, i64 experts, i64 choices) {
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
        const u32 id = take_largest(keys, lane_index());
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
