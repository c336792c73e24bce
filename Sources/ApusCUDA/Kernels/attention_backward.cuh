#pragma once
// Attention backward in bf16, deterministic, for contiguous keys, whatever multiplies the tiles. See
// Ops/Attention.swift; FlashAttention-2 (Dao 2023), 3.1.
//
// Probabilities are formed again from log-sum-exp. Two kernels, so that every output has one owner and no atomics: one
// owns threads / 2 keys of a key head and walks the query rows that see them (dk, dv: four products), one owns threads
// / 2 query rows and walks their keys (dq: three). That is 7 products where atomics would need 5; the floor is 14 H
// operations a visible pair. A warp owns 16 rows, so that each tile of the other side is copied once for all warps:
// through two buffers, or, where there is no room for that, one, which then waits for its copies.

#include "attention_tiles.cuh"

/// delta[t, h] = dot(dout[t, h], out[t, h]), what the softmax's gradient subtracts.
template <class T>
inline void attention_delta(
    float *delta, const T *dout, i64 dout_stride, const T *out, i64 out_stride, i64 tokens, i64 heads, i64 width) {
    const i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= tokens * heads) return;
    const i64 token = row / heads, at = (row - token * heads) * width;
    float sum = 0;
    for (i64 i = threadIdx.x % 32; i < width; i += 32) {
        sum += to_float(dout[token * dout_stride + at + i]) * to_float(out[token * out_stride + at + i]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[row] = sum;
}

/// p = exp(scale * s - lse) where visible, else 0.
inline float probability(float s, float factor, float lse2, bool is_visible) {
    return is_visible ? exp2_fast(fmaf(s, factor, -lse2)) : 0.0f;
}

/// What the key kernel needs to know of a query row besides q and dout.
struct RowFacts {
    float lse2, delta;
    i32 begin, end;
};

template <class Tile, int W, int threads, bool wants_k, bool wants_v>
inline void key_gradient(
    bf16 *dk, i64 dk_stride, bf16 *dv, i64 dv_stride, const bf16 *dout, i64 dout_stride, const float *sums,
    const float *delta, const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v, i64 v_stride,
    const Attention &p) {
    constexpr int owned = threads / 2, query_rows = Tile::walked;
    extern __shared__ __align__(16) char unaligned[];
    char *memory = Tile::aligned(unaligned);
    const int group = (int)p.group(), key_head = blockIdx.y, tile_tokens = query_rows / group;
    const QueryTile tile = find_query_tile(blockIdx.x, p.cu_k, p.sequences, owned, false);
    if (tile.sequence < 0) return;
    const i64 sequence = tile.sequence, keys = p.key_count(sequence), first_key = tile.token - p.cu_k[sequence];
    const i64 q_begin = p.cu_q[sequence], q_end = p.cu_q[sequence + 1];
    const int lane = threadIdx.x % 32, warp_key = threadIdx.x / 32 * 16;
    constexpr u32 size = Tile::bytes(query_rows), own_size = Tile::bytes(owned);
    const u32 key_rows = shared_address(memory), value_rows = key_rows + own_size, ring = value_rows + own_size;
    RowFacts *facts = (RowFacts *)(memory + 2 * own_size + 2 * Tile::buffers * size);

    // Under a causal mask, earlier queries see none of these keys; with a window, later ones do not.
    i64 from = q_begin, to = q_end;
    if (p.is_causal) {
        from = max(q_begin, q_end - keys + first_key);
        if (p.window > 0) to = min(q_end, first_key + owned + p.window + q_end - keys);
    }
    from = q_begin + (from - q_begin) / tile_tokens * tile_tokens;

    const bool kv_vector = is_aligned(k, k_stride) && is_aligned(v, v_stride) && p.width % 8 == 0;
    const bool q_vector = is_aligned(q, q_stride) && is_aligned(dout, dout_stride) && p.width % 8 == 0;
    auto column = [&](int row) { return (key_head * group + row % group) * p.width; };
    auto start = [&](i64 token, int buffer) {
        const int rows = (int)min((i64)tile_tokens, q_end - token) * group;
        auto copy_rows = [&](u32 to, const bf16 *x, i64 stride) {
            if (group == 1) {
                const bf16 *from = x + token * stride + key_head * p.width;
                Tile::template copy_run<query_rows>(to, from, stride, rows, p.width, q_vector);
                return;
            }
            Tile::copy(to, query_rows, p.width, q_vector, [&](int row) {
                return row < rows ? x + (token + row / group) * stride + column(row) : nullptr;
            });
        };
        copy_rows(ring + buffer * 2 * size, q, q_stride);
        copy_rows(ring + buffer * 2 * size + size, dout, dout_stride);
        commit_copies();
        if (threadIdx.x >= query_rows) return;
        RowFacts fact = {0, 0, 0, 0};
        if ((int)threadIdx.x < rows) {
            const i64 at = token + threadIdx.x / group;
            const i64 row = at * p.query_heads + key_head * group + threadIdx.x % group;
            fact.lse2 = sums[row] * log2_e;
            fact.delta = delta[row];
            p.visible(sequence, at, keys, fact.begin, fact.end);
        }
        facts[buffer * query_rows + threadIdx.x] = fact;
    };
    const int owned_keys = (int)tile.tokens;
    Tile::template copy_run<owned>(
        key_rows, k + tile.token * k_stride + key_head * p.width, k_stride, owned_keys, p.width, kv_vector);
    Tile::template copy_run<owned>(
        value_rows, v + tile.token * v_stride + key_head * p.width, v_stride, owned_keys, p.width, kv_vector);
    if (from < to) start(from, 0);
    else commit_copies();

    float sum_k[wants_k ? W / 8 : 1][4] = {}, sum_v[wants_v ? W / 8 : 1][4] = {};
    const float factor = p.scale * log2_e;
    int buffer = 0;
    for (i64 token = from; token < to; token += tile_tokens, buffer ^= Tile::buffers - 1) {
        if (Tile::buffers == 2 && token + tile_tokens < to) start(token + tile_tokens, buffer ^ 1);
        else commit_copies();
        wait_copies<Tile::buffers - 1>();
        Tile::publish();
        __syncthreads();
        const u32 queries = ring + buffer * 2 * size, douts = queries + size;
        const RowFacts *fact = facts + buffer * query_rows;
        float s[1][query_rows / 8][4] = {};
        Tile::template multiply_transposed<1, 2>(s, key_rows, warp_key, queries);
#pragma unroll
        for (int j = 0; j < query_rows / 8; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const RowFacts row = fact[j * 8 + lane % 4 * 2 + e % 2];
                const i32 key = (i32)first_key + warp_key + lane / 4 + e / 2 * 8;
                s[0][j][e] = probability(s[0][j][e], factor, row.lse2, key >= row.begin && key < row.end);
            }
        }
        Rounded<query_rows> rounded[1];
        if (wants_v) {
            rounded[0].round(s[0]);
            Tile::multiply((float (&)[1][W / 8][4])sum_v, rounded, douts);
        }
        if (wants_k) {
            float d[1][query_rows / 8][4] = {};
            Tile::template multiply_transposed<1, 2>(d, value_rows, warp_key, douts);
#pragma unroll
            for (int j = 0; j < query_rows / 8; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    d[0][j][e] = s[0][j][e] * (d[0][j][e] - fact[j * 8 + lane % 4 * 2 + e % 2].delta);
                }
            }
            rounded[0].round(d[0]);
            Tile::multiply((float (&)[1][W / 8][4])sum_k, rounded, queries);
        }
        __syncthreads();
        if (Tile::buffers == 1 && token + tile_tokens < to) start(token + tile_tokens, 0);
    }
    wait_copies<0>();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_key + lane / 4 + 8 * h;
        if (row >= tile.tokens) continue;
#pragma unroll
        for (int j = 0; j < W / 8; ++j) {
            const int column = j * 8 + lane % 4 * 2;
            if (wants_k) {
                store_pair(dk + (tile.token + row) * dk_stride + key_head * p.width, column, p.width,
                           sum_k[j][2 * h] * p.scale, sum_k[j][2 * h + 1] * p.scale);
            }
            if (wants_v) {
                store_pair(dv + (tile.token + row) * dv_stride + key_head * p.width, column, p.width, sum_v[j][2 * h],
                           sum_v[j][2 * h + 1]);
            }
        }
    }
}

template <class Tile, int W, int threads>
inline void query_gradient(
    bf16 *dq, i64 dq_stride, const bf16 *dout, i64 dout_stride, const float *sums, const float *delta, const bf16 *q,
    i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v, i64 v_stride, const Attention &p) {
    constexpr int owned = threads / 2, key_tile = Tile::walked;
    extern __shared__ __align__(16) char unaligned[];
    char *memory = Tile::aligned(unaligned);
    const int group = (int)p.group(), key_head = blockIdx.y;
    const QueryTile tile = find_query_tile(blockIdx.x, p.cu_q, p.sequences, owned / group, true);
    if (tile.sequence < 0) return;
    const i64 sequence = tile.sequence, keys = p.key_count(sequence);
    const int rows = (int)tile.tokens * group, lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16;
    constexpr u32 size = Tile::bytes(key_tile), own_size = Tile::bytes(owned);
    const u32 queries = shared_address(memory), douts = queries + own_size, ring = douts + own_size;
    auto column = [&](int row) { return (key_head * group + row % group) * p.width; };

    i32 begin = 0, end = 0, first, last;
    if ((int)threadIdx.x < rows) p.visible(sequence, tile.token + threadIdx.x / group, keys, begin, end);
    visible_span(begin, end, first, last);
    first = first / key_tile * key_tile;

    const bool kv_vector = is_aligned(k, k_stride) && is_aligned(v, v_stride) && p.width % 8 == 0;
    const bool q_vector = is_aligned(q, q_stride) && is_aligned(dout, dout_stride) && p.width % 8 == 0;
    auto start = [&](i32 key, int buffer) {
        const i64 at = p.cu_k[sequence] + key;
        const u32 to = ring + buffer * 2 * size;
        const bf16 *from_k = k + at * k_stride + key_head * p.width, *from_v = v + at * v_stride + key_head * p.width;
        Tile::template copy_run<key_tile>(to, from_k, k_stride, last - key, p.width, kv_vector);
        Tile::template copy_run<key_tile>(to + size, from_v, v_stride, last - key, p.width, kv_vector);
        commit_copies();
    };
    Tile::copy(queries, owned, p.width, q_vector, [&](int row) {
        return row < rows ? q + (tile.token + row / group) * q_stride + column(row) : nullptr;
    });
    Tile::copy(douts, owned, p.width, q_vector, [&](int row) {
        return row < rows ? dout + (tile.token + row / group) * dout_stride + column(row) : nullptr;
    });
    if (first < last) start(first, 0);

    i32 begins[2] = {}, ends[2] = {};
    float lse2[2] = {}, mean[2] = {}, sum[1][W / 8][4] = {};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + lane / 4 + 8 * h;
        if (row >= rows) continue;
        const i64 token = tile.token + row / group, at = token * p.query_heads + key_head * group + row % group;
        p.visible(sequence, token, keys, begins[h], ends[h]);
        lse2[h] = sums[at] * log2_e;
        mean[h] = delta[at];
    }
    const float factor = p.scale * log2_e;
    for (i32 key = first; key < last; key += key_tile) {
        const int buffer = (key - first) / key_tile & (Tile::buffers - 1);
        if (Tile::buffers == 2 && key + key_tile < last) start(key + key_tile, buffer ^ 1);
        else commit_copies();
        wait_copies<Tile::buffers - 1>();
        Tile::publish();
        __syncthreads();
        const u32 key_rows = ring + buffer * 2 * size;
        float s[1][key_tile / 8][4] = {}, d[1][key_tile / 8][4] = {};
        Tile::template multiply_transposed<1, 2>(s, queries, warp_row, key_rows);
        Tile::template multiply_transposed<1, 2>(d, douts, warp_row, key_rows + size);
#pragma unroll
        for (int j = 0; j < key_tile / 8; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const i32 at = key + j * 8 + lane % 4 * 2 + e % 2;
                const bool is_visible = at >= begins[e / 2] && at < ends[e / 2];
                d[0][j][e] = probability(s[0][j][e], factor, lse2[e / 2], is_visible) * (d[0][j][e] - mean[e / 2]);
            }
        }
        Rounded<key_tile> rounded[1];
        rounded[0].round(d[0]);
        Tile::multiply(sum, rounded, key_rows);
        __syncthreads();
        if (Tile::buffers == 1 && key + key_tile < last) start(key + key_tile, 0);
    }
    wait_copies<0>();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + lane / 4 + 8 * h;
        if (row >= rows) continue;
        bf16 *to = dq + (tile.token + row / group) * dq_stride + column(row);
#pragma unroll
        for (int j = 0; j < W / 8; ++j) {
            store_pair(to, j * 8 + lane % 4 * 2, p.width, sum[0][j][2 * h] * p.scale, sum[0][j][2 * h + 1] * p.scale);
        }
    }
}

#define KEY_ARGUMENTS                                                                                                  \
    bf16 *dk, i64 dk_stride, bf16 *dv, i64 dv_stride, const bf16 *dout, i64 dout_stride, const float *sums,            \
        const float *delta, const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v, i64 v_stride
#define KEY_VALUES                                                                                                     \
    dk, dk_stride, dv, dv_stride, dout, dout_stride, sums, delta, q, q_stride, k, k_stride, v, v_stride, ATTENTION
