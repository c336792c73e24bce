// What a step of generation does besides the model: the next tokens, and where their keys go. See Ops/Decode.swift.
//
// A few kilobytes but for the logits, 4 N V bytes read once: launches cost more than the work.

#include "reduce.cuh"

/// choices (N, 2) = the id of the highest of each row's logits, equal ones to the lower id, and that logit's bits;
/// where a logit is NaN or positive infinity, the first such instead. Launch: N blocks, 1024 threads.
extern "C" __global__ void arg_max(i32 *choices, const float *logits, i64 stride, i64 width) {
    __shared__ float best_values[32];
    __shared__ i32 best_ids[32], bad_ids[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *row = logits + blockIdx.x * stride;
    constexpr i32 none = 0x7FFFFFFF;
    float best = -infinity;
    i32 id = none, bad = none;
    for (i32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float x = row[i];
        if (!(x < infinity)) bad = min(bad, i);
        if (x > best || id == none) best = x, id = i;
    }
    auto join = [&](float other, i32 other_id) {
        if (other_id != none && (id == none || other > best || (other == best && other_id < id))) {
            best = other;
            id = other_id;
        }
    };
    auto over_warp = [&] {
#pragma unroll
        for (int offset = 16; offset > 0; offset >>= 1) {
            const float other = __shfl_xor_sync(all_lanes, best, offset);
            join(other, __shfl_xor_sync(all_lanes, id, offset));
            bad = min(bad, __shfl_xor_sync(all_lanes, bad, offset));
        }
    };
    over_warp();
    if (lane == 0) best_values[warp] = best, best_ids[warp] = id, bad_ids[warp] = bad;
    __syncthreads();
    if (warp > 0) return;
    best = best_values[lane], id = best_ids[lane], bad = bad_ids[lane];
    over_warp();
    if (lane > 0) return;
    if (bad != none) id = bad;
    choices[2 * blockIdx.x] = id;
    choices[2 * blockIdx.x + 1] = __float_as_int(row[id]);
}

/// One token more for each of S sequences: tokens[s] = choices[s, 0], positions[s] = lengths[s], places[s] = where the
/// position's key goes in blocks of `block_size`, lengths[s] += 1. Launch: S / 128 blocks rounded up, 128 threads.
extern "C" __global__ void begin_decode_step(
    i32 *tokens, i32 *positions, i32 *places, i32 *lengths, const i32 *choices, const i32 *table, i64 table_stride,
    i64 block_size, i64 sequences) {
    const i64 s = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (s >= sequences) return;
    const i32 position = lengths[s];
    tokens[s] = choices[2 * s];
    positions[s] = position;
    places[s] = table[s * table_stride + position / block_size] * (i32)block_size + position % (i32)block_size;
    lengths[s] = position + 1;
}

/// kept_keys[places[t]] = keys[t], and values alike. Launch: "rows" for T rows, and 2 in y: keys, values.
template <class T>
inline void store_keys(
    T *kept_keys, i64 kept_key_stride, const T *keys, i64 key_stride, T *kept_values, i64 kept_value_stride,
    const T *values, i64 value_stride, const i32 *places, i64 tokens, i64 width) {
    const i64 token = row_index();
    if (token >= tokens) return;
    const bool is_keys = blockIdx.y == 0;
    const T *in = is_keys ? keys + token * key_stride : values + token * value_stride;
    T *out = is_keys ? kept_keys + places[token] * kept_key_stride : kept_values + places[token] * kept_value_stride;
    const bool vector = is_aligned(in) && is_aligned(out);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u;
        load(u, in + i, left, vector);
        store(out + i, u, left, vector);
    });
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void store_keys_##suffix(                                                                    \
        T *kept_keys, i64 kept_key_stride, const T *keys, i64 key_stride, T *kept_values, i64 kept_value_stride,       \
        const T *values, i64 value_stride, const i32 *places, i64 tokens, i64 width) {                                 \
        store_keys(                                                                                                    \
            kept_keys, kept_key_stride, keys, key_stride, kept_values, kept_value_stride, values, value_stride, places,\
            tokens, width);                                                                                            \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
