// Combine weights from scores and choices, and the sums that balance losses are made of; and back. See Ops/Gate.swift.
//
// All f32, a few megabytes: launches cost more than the work. T tokens, E experts, K choices, G groups; `ranges` (G, 2)
// `i32` holds the first and the last token (excluded) of each group, `mask` (T) `u8` (or null) the tokens that count.

#include "reduce.cuh"

/// What a sum of weights is raised to before dividing by it, so that weights that are all 0 stay 0.
constexpr float smallest_sum = 1.2e-38f;

/// weights (T, K) from scores (T, E) and ids (T, K); without ids (null) a token chooses every expert, in order. Launch:
/// T / 128 blocks rounded up, 128 threads, a token each, which adds in the order of k, as expert_choice.cu does.
extern "C" __global__ void gate_weights(
    float *weights, const float *scores, const i32 *ids, i64 tokens, i64 experts, i64 choices, i64 is_softmax_of_chosen,
    i64 renormalizes, float scale) {
    const i64 token = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= tokens) return;
    const float *row = scores + token * experts;
    float *out = weights + token * choices;
    auto pick = [&](i64 k) { return ids ? ids[token * choices + k] : (i32)k; };
    float largest = -infinity, sum = 0;
    if (is_softmax_of_chosen) {
        for (i64 k = 0; k < choices; ++k) {
            if (pick(k) >= 0) largest = fmaxf(largest, row[pick(k)]);
        }
    }
    for (i64 k = 0; k < choices; ++k) {
        const i32 expert = pick(k);
        const float value = expert < 0 ? 0.0f : is_softmax_of_chosen ? expf(row[expert] - largest) : row[expert];
        out[k] = value;
        sum = __fadd_rn(sum, value);
    }
    const float factor = is_softmax_of_chosen || renormalizes ? scale / fmaxf(sum, smallest_sum) : scale;
    for (i64 k = 0; k < choices; ++k) out[k] *= factor;
}

/// dscores (T, E) += the gradient. Of w = scale * v / sum(v), v the score or its exponential:
/// dv = scale / sum(v) * (dw - sum(dw * w) / scale). Launch as `gate_weights`.
extern "C" __global__ void gate_weights_backward(
    float *dscores, const float *dweights, const float *scores, const i32 *ids, const float *weights, i64 tokens,
    i64 experts, i64 choices, i64 is_softmax_of_chosen, i64 renormalizes, float scale) {
    const i64 token = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= tokens) return;
    const float *row = scores + token * experts, *d = dweights + token * choices, *w = weights + token * choices;
    float *out = dscores + token * experts;
    auto pick = [&](i64 k) { return ids ? ids[token * choices + k] : (i32)k; };
    float mean = 0, sum = 0;
    for (i64 k = 0; k < choices; ++k) {
        if (pick(k) < 0) continue;
        mean += d[k] * w[k] / scale;
        sum += row[pick(k)];
    }
    for (i64 k = 0; k < choices; ++k) {
        const i32 expert = pick(k);
        if (expert < 0) continue;
        out[expert] += is_softmax_of_chosen ? w[k] * (d[k] - mean)
            : renormalizes ? scale / fmaxf(sum, smallest_sum) * (d[k] - mean)
                           : scale * d[k];
    }
}

/// Tokens of a group that one block adds up.
constexpr i64 chunk_tokens = 2048;

/// partials[g, c, e] = the sum of values[t, e] over the c-th 2048 tokens of group g that count. (32, 32) threads, and
/// 32 experts for each block in z; `slices` is theirs.
inline void sum_chunk(
    float *partials, const float *values, const i32 *ranges, const u8 *mask, i64 experts, float (&slices)[32][33]) {
    const i64 expert = blockIdx.z * 32LL + threadIdx.x;
    const i64 begin = ranges[2 * blockIdx.y] + blockIdx.x * chunk_tokens;
    const i64 end = min((i64)ranges[2 * blockIdx.y + 1], begin + chunk_tokens);
    float sum = 0;
    if (expert < experts) {
#pragma unroll 4
        for (i64 token = begin + threadIdx.y; token < end; token += 32) {
            if (!mask || mask[token]) sum += values[token * experts + expert];
        }
    }
    slices[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || expert >= experts) return;
    sum = 0;
    for (int i = 0; i < 32; ++i) sum += slices[i][threadIdx.x];
    partials[(blockIdx.y * (i64)gridDim.x + blockIdx.x) * experts + expert] = sum;
}

/// partials[g, c, e] = how often expert e is chosen by those tokens; as `sum_chunk`, `counts` has 32 words. Whole
/// numbers: their sums are exact in any order.
inline void count_chunk(
    float *partials, const i32 *ids, const i32 *ranges, const u8 *mask, i64 experts, i64 choices, i32 *counts) {
    const int thread = threadIdx.y * 32 + threadIdx.x;
    const i64 first = blockIdx.z * 32LL;
    const i64 begin = ranges[2 * blockIdx.y] + blockIdx.x * chunk_tokens;
    const i64 end = min((i64)ranges[2 * blockIdx.y + 1], begin + chunk_tokens);
    if (thread < 32) counts[thread] = 0;
    __syncthreads();
    for (i64 slot = begin * choices + thread; slot < end * choices; slot += 1024) {
        const i64 place = ids[slot] - first;
        if (place >= 0 && place < 32 && (!mask || mask[slot / choices])) atomicAdd(counts + place, 1);
    }
    __syncthreads();
    if (thread >= 32 || first + thread >= experts) return;
    partials[(blockIdx.y * (i64)gridDim.x + blockIdx.x) * experts + first + thread] = (float)counts[thread];
}

/// Sums of values and counts of choices, any of the two left out (null). Launch: (chunks, G, E / 32 rounded up) blocks,
/// (32, 32) threads; `chunks` is that of the longest group. With one chunk the partials are the results; else
/// `sum_chunks` adds them.
extern "C" __global__ void sum_over_groups(
    float *sums, float *counts, const float *values, const i32 *ids, const i32 *ranges, const u8 *mask, i64 experts,
    i64 choices) {
    __shared__ float slices[32][33];
    __shared__ i32 chosen[32];
    if (sums) sum_chunk(sums, values, ranges, mask, experts, slices);
    __syncthreads();
    if (counts) count_chunk(counts, ids, ranges, mask, experts, choices, chosen);
}

/// sums[g, e] = the sum over c of partials[g, c, e], in order, and counts alike; null as above. Launch: (E / 128
/// rounded up, G, 2) blocks, 128 threads.
extern "C" __global__ void sum_chunks(
    float *sums, float *counts, const float *sum_partials, const float *count_partials, i64 chunks, i64 experts) {
    const i64 expert = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    float *out = blockIdx.z == 0 ? sums : counts;
    const float *partials = blockIdx.z == 0 ? sum_partials : count_partials;
    if (expert >= experts || !out) return;
    float sum = 0;
#pragma unroll 8
    for (i64 c = 0; c < chunks; ++c) sum += partials[(blockIdx.y * chunks + c) * experts + expert];
    out[blockIdx.y * experts + expert] = sum;
}

/// dvalues[t] += dsums[g] for the tokens of each group that count. Launch: (chunks, G) blocks, 256 threads.
extern "C" __global__ void sum_over_groups_backward(
    float *dvalues, const float *dsums, const i32 *ranges, const u8 *mask, i64 experts) {
    const i64 begin = ranges[2 * blockIdx.y] + blockIdx.x * chunk_tokens;
    const i64 end = min((i64)ranges[2 * blockIdx.y + 1], begin + chunk_tokens);
    for (i64 i = begin * experts + threadIdx.x; i < end * experts; i += blockDim.x) {
        const i64 token = i / experts;
        if (!mask || mask[token]) dvalues[i] += dsums[blockIdx.y * experts + i - token * experts];
    }
}
