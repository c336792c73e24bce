// All that a dropless router makes of its logits, and its gradient. See Ops/RouterPass.swift.
//
// A warp holds the E logits of a token in registers: scores, the K best, their combine weights, and the counts that
// order the rows, in one pass. Floor: logits read and scores written, 8 T E bytes.

#include "choice.cuh"
#include "expert_order.cuh"

/// What a sum of weights is raised to before dividing by it, so that weights that are all 0 stay 0.
constexpr float smallest_sum = 1.2e-38f;

/// scores (T, E), ids and weights (T, K) of logits (T, E); K at most 32. A lane has experts lane + 32 * i, and then the
/// choice of its own number. Scores and weights have the bits that router.cu and gate.cu give them, which replay a
/// checkpointed block: the same order of each sum, and no sum fused with the product that it adds.
template <int per_lane>
inline void choose(
    float *scores, i32 *ids, float *weights, i32 *counts, const float *logits, const float *bias, i64 experts,
    i64 choices, bool is_sigmoid, bool is_softmax_of_chosen, bool renormalizes, float scale) {
    const int lane = threadIdx.x % 32;
    float x[per_lane], p[per_lane];
    i32 keys[per_lane];
    float top = -infinity, sum = 0;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        x[i] = lane + 32 * i < experts ? logits[lane + 32 * i] : -infinity;
        top = fmaxf(top, x[i]);
    }
    if (is_sigmoid) {
#pragma unroll
        for (int i = 0; i < per_lane; ++i) p[i] = 1.0f / __fadd_rn(1.0f, expf(-x[i]));
    } else {
        top = warp_max(top);
        if (!(top > -infinity)) top = 0;
#pragma unroll
        for (int i = 0; i < per_lane; ++i) sum = __fadd_rn(sum, p[i] = expf(x[i] - top));
        sum = warp_sum(sum);
        const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
        for (int i = 0; i < per_lane; ++i) p[i] *= inverse;
    }
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const int expert = lane + 32 * i;
        keys[i] = taken;
        if (expert >= experts) continue;
        scores[expert] = p[i];
        keys[i] = ordered_key((is_sigmoid ? p[i] : x[i]) + (bias ? bias[expert] : 0.0f));
    }
    i32 chosen = 0;
    for (int k = 0; k < choices; ++k) {
        const i32 id = (i32)take_largest(keys, lane);
        if (lane == k) chosen = id;
    }
    // The scores are those that other lanes have written.
    __syncwarp();
    float value = lane < choices ? (is_softmax_of_chosen ? logits : scores)[chosen] : 0.0f;
    if (is_softmax_of_chosen) {
        const float largest = warp_max(lane < choices ? value : -infinity);
        value = lane < choices ? expf(value - largest) : 0.0f;
    }
    float total = 0;
    for (int k = 0; k < choices; ++k) total = __fadd_rn(total, __shfl_sync(all_lanes, value, k));
    const float factor = is_softmax_of_chosen || renormalizes ? scale / fmaxf(total, smallest_sum) : scale;
    if (lane >= choices) return;
    ids[lane] = chosen;
    weights[lane] = value * factor;
    atomicAdd(counts + chosen, 1);
}

/// Launch: a block for each `chunk_tokens` tokens, 1024 threads (256 for E above 256), shared memory as
/// `expert_histogram`; more than one block needs `expert_place` after it, chunk_slots = K chunk_tokens.
template <int per_lane>
inline void choose_experts(
    float *scores, i32 *ids, float *weights, const ExpertOrder &order, const float *logits, const float *bias,
    i64 tokens, i64 experts, i64 choices, i64 chunk_tokens, bool is_sigmoid, bool is_softmax_of_chosen,
    bool renormalizes, float scale) {
    extern __shared__ i32 shared[];
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) shared[e] = 0;
    __syncthreads();
    const i64 begin = (i64)blockIdx.x * chunk_tokens, end = min(tokens, begin + chunk_tokens);
    for (i64 token = begin + threadIdx.x / 32; token < end; token += blockDim.x / 32) {
        choose<per_lane>(
            scores + token * experts, ids + token * choices, weights + token * choices, shared,
            logits + token * experts, bias, experts, choices, is_sigmoid, is_softmax_of_chosen, renormalizes, scale);
    }
    __syncthreads();
    store_counts(order, shared, experts);
    __syncthreads();
    if (gridDim.x == 1) place_chunk(order, shared, ids, tokens * choices, choices, experts, chunk_tokens * choices);
}

/// Named by the most experts: take the smallest that holds E.
#define DEFINE(most, threads)                                                                                          \
    extern "C" __global__ void __launch_bounds__(threads, 1) choose_experts_##most(                                    \
        float *scores, i32 *ids, float *weights, i32 *slot_to_row, i32 *row_to_slot, i32 *row_to_token, i32 *counts,   \
        i32 *offsets, i32 *chunk_counts, const float *logits, const float *bias, i64 tokens, i64 experts, i64 choices, \
        i64 chunk_tokens, i64 is_sigmoid, i64 is_softmax_of_chosen, i64 renormalizes, float scale) {                   \
        const ExpertOrder order = {slot_to_row, row_to_slot, row_to_token, counts, offsets, chunk_counts};             \
        choose_experts<most / 32>(                                                                                     \
            scores, ids, weights, order, logits, bias, tokens, experts, choices, chunk_tokens, is_sigmoid,             \
            is_softmax_of_chosen, renormalizes, scale);                                                                \
    }
DEFINE(32, 1024)
DEFINE(64, 1024)
DEFINE(128, 1024)
DEFINE(256, 1024)
DEFINE(1024, 256)

/// dlogits (T, E) (+)= the gradient of softmax scores p that made combine weights and sums over groups, any of dweights
/// (T, K) and dsums (G, E) null. Of scores: p * (d - sum(p * d)), d what arrives at them; of a softmax over the chosen
/// logits: w * (dw - sum(w * dw) / scale), see gate.cu.
///
/// Launch: (T_g / 32 rounded up for the longest group, G) blocks, 256 threads, 32 E bytes of shared memory: a warp
/// takes a token at a time and holds its gradient there, for choices may be any experts.
extern "C" __global__ void softmax_gate_backward(
    float *dlogits, const float *dweights, const float *dsums, const float *scores, const float *logits, const i32 *ids,
    const float *weights, const i32 *ranges, const u8 *mask, i64 experts, i64 choices, i64 is_softmax_of_chosen,
    i64 renormalizes, float scale, i64 adds) {
    extern __shared__ float rows[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 group = blockIdx.y;
    const i64 begin = ranges[2 * group] + blockIdx.x * 32LL, end = min((i64)ranges[2 * group + 1], begin + 32);
    float *d = rows + warp * experts;
    for (i64 token = begin + warp; token < end; token += 8) {
        const bool has_sums = dsums && (!mask || mask[token]);
        for (i64 e = lane; e < experts; e += 32) d[e] = has_sums ? dsums[group * experts + e] : 0.0f;
        __syncwarp();
        const float *p = scores + token * experts, *row = is_softmax_of_chosen ? logits + token * experts : p;
        float *out = dlogits + token * experts;
        float mean = 0, sum = 0;
        if (dweights) {
            for (i64 k = lane; k < choices; k += 32) {
                const i64 slot = token * choices + k;
                if (ids[slot] < 0) continue;
                mean += dweights[slot] * weights[slot] / scale;
                sum += row[ids[slot]];
            }
            mean = warp_sum(mean);
            sum = warp_sum(sum);
        }
        if (dweights && !is_softmax_of_chosen) {
            for (i64 k = lane; k < choices; k += 32) {
                const i64 slot = token * choices + k;
                if (ids[slot] < 0) continue;
                d[ids[slot]] += renormalizes ? scale / fmaxf(sum, smallest_sum) * (dweights[slot] - mean)
                                             : scale * dweights[slot];
            }
        }
        __syncwarp();
        float dot = 0;
        for (i64 e = lane; e < experts; e += 32) dot += d[e] * p[e];
        dot = warp_sum(dot);
        for (i64 e = lane; e < experts; e += 32) d[e] = p[e] * (d[e] - dot) + (adds ? out[e] : 0.0f);
        __syncwarp();
        if (dweights && is_softmax_of_chosen) {
            for (i64 k = lane; k < choices; k += 32) {
                const i64 slot = token * choices + k;
                if (ids[slot] >= 0) d[ids[slot]] += weights[slot] * (dweights[slot] - mean);
            }
        }
        __syncwarp();
        for (i64 e = lane; e < experts; e += 32) out[e] = d[e];
        __syncwarp();
    }
}
