#pragma once
// Attention forward in bf16, whatever multiplies the tiles: out = softmax(scale q k^T) v over each query's visible
// keys, with log-sum-exp. See Ops/Attention.swift; FlashAttention-2 (Dao 2023), section 3.
//
// A block has threads / 2 * tiles rows (token, head) of one sequence and key head, a warp 16 * tiles of them with their
// sums in registers. Key tiles come through two buffers; scores and probabilities stay in registers.

#include "attention_tiles.cuh"

template <class Tile, int W, int threads, int tiles>
inline void attention_forward(
    bf16 *out, i64 out_stride, float *sums, const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v,
    i64 v_stride, const Attention &p) {
    constexpr int query_rows = threads / 2 * tiles, key_tile = Tile::walked;
    static_assert(Tile::buffers == 2, "a tile is copied while another is multiplied");
    extern __shared__ __align__(16) char memory[];
    const int group = (int)p.group(), key_head = blockIdx.y;
    const QueryTile tile = find_query_tile(blockIdx.x, p.cu_q, p.sequences, query_rows / group, true);
    if (tile.sequence < 0) return;
    const i64 sequence = tile.sequence, keys = p.key_count(sequence);
    const int rows = (int)tile.tokens * group, lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * tiles;
    const u32 queries = shared_address(Tile::aligned(memory)), ring = queries + Tile::bytes(query_rows);
    constexpr u32 half = Tile::bytes(key_tile);

    auto row_offset = [&](int row, i64 stride) {
        return (tile.token + row / group) * stride + (key_head * group + row % group) * p.width;
    };
    i32 begin = 0, end = 0, first, last;
    if ((int)threadIdx.x < rows) p.visible(sequence, tile.token + threadIdx.x / group, keys, begin, end);
    visible_span(begin, end, first, last);
    first = first / key_tile * key_tile;

    const bool q_vector = is_aligned(q, q_stride) && p.width % 8 == 0;
    const bool kv_vector = is_aligned(k, k_stride) && is_aligned(v, v_stride) && is_aligned(k, p.k_block_stride)
        && is_aligned(v, p.v_block_stride) && p.width % 8 == 0;
    auto copy_keys = [&](u32 to, const bf16 *x, i64 stride, i64 block_stride, i32 key) {
        const bf16 *from = x + key_head * p.width;
        if (!p.block_table) {
            from += (p.cu_k[sequence] + key) * stride;
            Tile::template copy_run<key_tile>(to, from, stride, last - key, p.width, kv_vector);
            return;
        }
        Tile::copy(to, key_tile, p.width, kv_vector, [&](int row) {
            return key + row < last ? from + p.key_offset(sequence, key + row, stride, block_stride) : nullptr;
        });
    };
    auto start = [&](i32 key, int buffer) {
        copy_keys(ring + buffer * 2 * half, k, k_stride, p.k_block_stride, key);
        copy_keys(ring + buffer * 2 * half + half, v, v_stride, p.v_block_stride, key);
        commit_copies();
    };
    Tile::copy(queries, query_rows, p.width, q_vector, [&](int row) {
        return row < rows ? q + row_offset(row, q_stride) : nullptr;
    });
    if (first < last) start(first, 0);

    // Each thread has two rows of each 16. What they see is worked out again where a tile is not whole for the warp,
    // which is seldom: kept, it would take registers that the sums need.
    auto row_sees = [&](int i, int h, i32 &begin, i32 &end) {
        const int row = warp_row + i * 16 + lane / 4 + h * 8;
        begin = end = 0;
        if (row < rows) p.visible(sequence, tile.token + row / group, keys, begin, end);
        return row < rows;
    };
    float top[tiles][2], norm[tiles][2] = {}, sum[tiles][W / 8][4] = {};
    i32 whole_begin = 0, whole_end = 0x7FFFFFFF;
#pragma unroll
    for (int i = 0; i < 2 * tiles; ++i) {
        top[i / 2][i % 2] = -infinity;
        if (!row_sees(i / 2, i % 2, begin, end)) continue;
        whole_begin = max(whole_begin, begin);
        whole_end = min(whole_end, end);
    }
    whole_begin = __reduce_max_sync(all_lanes, whole_begin);
    whole_end = __reduce_min_sync(all_lanes, whole_end);
    const float factor = p.scale * log2_e;
    for (i32 key = first; key < last; key += key_tile) {
        const int buffer = (key - first) / key_tile & 1;
        if (key + key_tile < last) start(key + key_tile, buffer ^ 1);
        else commit_copies();
        wait_copies<1>();
        Tile::publish();
        __syncthreads();
        const u32 key_rows = ring + buffer * 2 * half;
        float s[tiles][key_tile / 8][4] = {};
        Tile::template multiply_transposed<tiles, 1>(s, queries, warp_row, key_rows);
        Rounded<key_tile> probabilities[tiles];
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
            if (whole_begin > key || whole_end < key + key_tile) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    row_sees(i, h, begin, end);
#pragma unroll
                    for (int e = 0; e < key_tile / 4; ++e) {
                        const i32 column = key + e / 2 * 8 + lane % 4 * 2 + e % 2;
                        if (column < begin || column >= end) s[i][e / 2][2 * h + e % 2] = -infinity;
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float largest = s[i][0][2 * h];
#pragma unroll
                for (int e = 1; e < key_tile / 4; ++e) largest = fmaxf(largest, s[i][e / 2][2 * h + e % 2]);
                largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, 2));
                const float now = fmaxf(top[i][h], largest * factor);
                // With no key seen so far every score is -infinity; subtracting 0 makes the exponentials 0 instead of
                // NaN.
                const float shift = now == -infinity ? 0.0f : now, keep = exp2_fast(top[i][h] - shift);
                top[i][h] = now;
                float total = 0;
#pragma unroll
                for (int e = 0; e < key_tile / 4; ++e) {
                    float &score = s[i][e / 2][2 * h + e % 2];
                    score = exp2_fast(fmaf(score, factor, -shift));
                    total += score;
                }
                norm[i][h] = norm[i][h] * keep + total;
#pragma unroll
                for (int j = 0; j < W / 8; ++j) {
                    sum[i][j][2 * h] *= keep;
                    sum[i][j][2 * h + 1] *= keep;
                }
            }
            probabilities[i].round(s[i]);
        }
        Tile::multiply(sum, probabilities, key_rows + half);
        __syncthreads();
    }
    wait_copies<0>();
#pragma unroll
    for (int i = 0; i < 2 * tiles; ++i) {
        const int h = i % 2, row = warp_row + i / 2 * 16 + lane / 4 + h * 8;
        float total = norm[i / 2][h] + __shfl_xor_sync(all_lanes, norm[i / 2][h], 1);
        total += __shfl_xor_sync(all_lanes, total, 2);
        if (row >= rows) continue;
        const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
        bf16 *to = out + row_offset(row, out_stride);
#pragma unroll
        for (int j = 0; j < W / 8; ++j) {
            const float *at = sum[i / 2][j] + 2 * h;
            store_pair(to, j * 8 + lane % 4 * 2, p.width, at[0] * inverse, at[1] * inverse);
        }
        if (!sums || lane % 4 > 0) continue;
        sums[(tile.token + row / group) * p.query_heads + key_head * group + row % group] =
            total == 0.0f ? -infinity : top[i / 2][h] * ln_2 + logf(total);
    }
}
