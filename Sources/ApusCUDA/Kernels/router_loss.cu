// The losses that keep a router in order, each value with its gradient. See Ops/RouterLoss.swift.
//
// All f32, sums that make a value in f64. T tokens, E experts, K choices, G groups; `ranges` and `mask` as in gate.cu.
// The gradient is that of coefficient * value and may be null. A megabyte or two: launches cost more than the work.

#include "reduce.cuh"

/// value = scale * the sum over g, e of f[g, e] * sums[g, e], f the share of e in the choices of g; gradient (G, E).
/// Launch: one block of (32, 32) threads; a warp takes every 32nd group.
extern "C" __global__ void balance_loss(
    float *value, float *gradient, const float *sums, const float *counts, i64 groups, i64 experts, float scale,
    float coefficient) {
    __shared__ double totals[32];
    double total = 0;
    for (i64 group = threadIdx.y; group < groups; group += 32) {
        const i64 base = group * experts;
        float choices = 0;
        for (i64 e = threadIdx.x; e < experts; e += 32) choices += counts[base + e];
        choices = warp_sum(choices);
        const float factor = choices > 0 ? scale / choices : 0.0f;
        for (i64 e = threadIdx.x; e < experts; e += 32) {
            const float share = factor * counts[base + e];
            total += (double)share * (double)sums[base + e];
            if (gradient) gradient[base + e] = coefficient * share;
        }
    }
    total = warp_sum(total);
    if (threadIdx.x == 0) totals[threadIdx.y] = total;
    __syncthreads();
    if (threadIdx.x > 0 || threadIdx.y > 0) return;
    for (int i = 1; i < 32; ++i) total += totals[i];
    value[0] = (float)total;
}

/// partials[b] = the sum of logSumExp(logits[t])^2 over the b-th `block_tokens` tokens, those that do not count left
/// out, and gradient (T, E), or null, of coefficient * scale times all of them: softmax times 2 * coefficient * scale *
/// logSumExp. Launch: T / block_tokens blocks rounded up, 256 threads. The value is `finish_sum` of reduce.cu over
/// `partials` with factor `scale`.
extern "C" __global__ void logit_loss(
    double *partials, float *gradient, const float *logits, const u8 *mask, i64 tokens, i64 experts, i64 block_tokens,
    float scale, float coefficient) {
    const int lane = threadIdx.x % 32;
    const i64 begin = blockIdx.x * block_tokens, end = min(tokens, begin + block_tokens);
    double total = 0;
    for (i64 token = begin + threadIdx.x / 32; token < end; token += blockDim.x / 32) {
        const float *row = logits + token * experts;
        float top = -infinity, sum = 0;
        for (i64 e = lane; e < experts; e += 32) top = fmaxf(top, row[e]);
        top = warp_max(top);
        if (!(top > -infinity)) top = 0;
        for (i64 e = lane; e < experts; e += 32) sum += expf(row[e] - top);
        sum = warp_sum(sum);
        const bool is_counted = !mask || mask[token];
        const float value = sum == 0.0f ? -infinity : top + logf(sum);
        if (lane == 0 && is_counted) total += (double)(value * value);
        if (!gradient) continue;
        const float factor = is_counted && sum > 0 ? 2.0f * coefficient * scale * value / sum : 0.0f;
        for (i64 e = lane; e < experts; e += 32) gradient[token * experts + e] = factor * expf(row[e] - top);
    }
    total = row_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

/// terms[g] = scale * T_g * CV(load[g])^2, load the weights (T, K) that each expert gets, T_g the tokens that count;
/// gradient (T, K). Launch: G blocks, 256 threads, 4 E bytes of shared memory. The value is the sum of the terms.
///
/// d(variance / mean^2) / dload = 2 / (E mean^2) * (load - mean - variance / mean). A thread adds up one expert at a
/// time over all slots, in order: E / 256 passes over a group's choices, which stay in cache.
extern "C" __global__ void importance_loss(
    float *terms, float *gradient, const float *weights, const i32 *ids, const i32 *ranges, const u8 *mask, i64 experts,
    i64 choices, float scale, float coefficient) {
    extern __shared__ float loads[];
    const i64 begin = ranges[2 * blockIdx.x], end = ranges[2 * blockIdx.x + 1];
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) {
        float sum = 0;
        for (i64 token = begin; token < end; ++token) {
            if (mask && !mask[token]) continue;
            for (i64 slot = token * choices; slot < (token + 1) * choices; ++slot) {
                sum += ids[slot] == e ? weights[slot] : 0.0f;
            }
        }
        loads[e] = sum;
    }
    float counted = 0;
    for (i64 token = begin + threadIdx.x; token < end; token += blockDim.x) {
        counted += !mask || mask[token] ? 1.0f : 0.0f;
    }
    counted = row_sum(counted);
    float sum = 0, squares = 0;
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) sum += loads[e];
    const float mean = row_sum(sum) / (float)experts;
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) squares += (loads[e] - mean) * (loads[e] - mean);
    const float variance = row_sum(squares) / (float)experts;
    const float share = mean > 0 ? scale * counted / (mean * mean) : 0.0f;
    if (threadIdx.x == 0) terms[blockIdx.x] = share * variance;
    if (!gradient) return;
    const float factor = coefficient * share * 2.0f / (float)experts, shift = mean > 0 ? mean + variance / mean : 0.0f;
    for (i64 slot = begin * choices + threadIdx.x; slot < end * choices; slot += blockDim.x) {
        const bool is_load = ids[slot] >= 0 && (!mask || mask[slot / choices]);
        gradient[slot] = is_load ? factor * (loads[ids[slot]] - shift) : 0.0f;
    }
}
