#pragma once
// What attention kernels share: where queries, keys and values are, and which keys a query sees. See
// Ops/Attention.swift.
//
// T query tokens, S sequences, Hq query heads, Hk key heads, G = Hq / Hk heads that share a key head, H head width. The
// rows of a block are (token, head) pairs of one sequence and key head: row r is token r / G, head r % G, so that keys
// are read once for all heads that share them. Key tiles start at multiples of their size from key 0, and a tile in
// which a row sees nothing leaves the row's bits alone: a row's result does not depend on the batch, nor on where its
// keys lie.

#include "reduce.cuh"

constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

/// Sizes, mask and placement of a call. Keys are contiguous (`cu_k`) or in blocks (`block_table`, `lengths`).
struct Attention {
    const i32 *cu_q, *first_key, *cu_k, *block_table, *lengths;
    i64 table_stride, block_size, k_block_stride, v_block_stride;
    i64 sequences, query_heads, key_heads, width, is_causal, window;
    float scale;

    i64 group() const { return query_heads / key_heads; }
    i64 key_count(i64 s) const { return block_table ? lengths[s] : cu_k[s + 1] - cu_k[s]; }

    /// Elements from `keys` or `values` to key `j` of sequence `s` and head 0.
    i64 key_offset(i64 s, i64 j, i64 token_stride, i64 block_stride) const {
        if (!block_table) return (cu_k[s] + j) * token_stride;
        const i64 block = j / block_size;
        return block_table[s * table_stride + block] * block_stride + (j - block * block_size) * token_stride;
    }

    /// The keys begin ..< end that query token `token` of the batch sees, counted from key 0 of its sequence.
    void visible(i64 s, i64 token, i64 keys, i32 &begin, i32 &end) const {
        i64 last = keys, first = 0;
        if (is_causal) last = keys - (cu_q[s + 1] - token) + 1;
        if (window > 0 && last > window) first = last - window;
        if (first_key && first_key[token] > first) first = first_key[token];
        if (last < 0) last = 0;
        begin = (i32)min(first, last);
        end = (i32)last;
    }
};

/// Rows of queries of one sequence: the first token, and how many tokens; sequence -1 past the last tile.
struct QueryTile {
    i64 sequence, token, tokens;
};

/// Tile number `tile` when sequence s has ceil(length / tile_tokens) tiles, the first or the last tiles of a sequence
/// first: under a causal mask the last queries have the most keys, and the first keys the most queries. `offsets` are
/// cumulative lengths. All threads of the block must call.
inline QueryTile find_query_tile(i64 tile, const i32 *offsets, i64 sequences, i64 tile_tokens, bool last_first) {
    __shared__ i64 found[2];
    if (threadIdx.x == 0) found[0] = -1;
    __syncthreads();
    if (threadIdx.x < 32) {
        const i64 per_lane = (sequences + 31) / 32, begin = threadIdx.x * per_lane;
        const i64 end = min(sequences, begin + per_lane);
        i64 mine = 0;
        for (i64 s = begin; s < end; ++s) mine += (offsets[s + 1] - offsets[s] + tile_tokens - 1) / tile_tokens;
        i64 upto = mine;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const i64 other = __shfl_up_sync(all_lanes, upto, step);
            if (threadIdx.x >= step) upto += other;
        }
        i64 first = upto - mine;
        for (i64 s = begin; s < end && tile >= first && tile < upto; ++s) {
            const i64 tiles = (offsets[s + 1] - offsets[s] + tile_tokens - 1) / tile_tokens;
            if (tile < first + tiles) {
                found[0] = s;
                found[1] = last_first ? tiles - 1 - (tile - first) : tile - first;
                break;
            }
            first += tiles;
        }
    }
    __syncthreads();
    if (found[0] < 0) return {-1, 0, 0};
    const i64 begin = offsets[found[0]] + found[1] * tile_tokens;
    return {found[0], begin, min(tile_tokens, offsets[found[0] + 1] - begin)};
}

/// The smallest `begin` and the largest `end` over the rows that see any key; all threads of the block must call.
inline void visible_span(i32 begin, i32 end, i32 &first, i32 &last) {
    __shared__ i32 span[2];
    __syncthreads();
    if (threadIdx.x == 0) span[0] = 0x7FFFFFFF, span[1] = 0;
    __syncthreads();
    if (begin < end) {
        atomicMin(span, begin);
        atomicMax(span + 1, end);
    }
    __syncthreads();
    first = span[0];
    last = span[1];
}

/// The arguments that every attention kernel ends with, and the struct they make.
#define ATTENTION_ARGUMENTS                                                                                            \
    const i32 *cu_q, const i32 *first_key, const i32 *cu_k, const i32 *block_table, i64 table_stride,                  \
        const i32 *lengths, i64 block_size, i64 k_block_stride, i64 v_block_stride, i64 sequences, i64 query_heads,    \
        i64 key_heads, i64 width, i64 is_causal, i64 window, float scale
#define ATTENTION                                                                                                      \
    Attention {                                                                                                        \
        cu_q, first_key, cu_k, block_table, lengths, table_stride, block_size, k_block_stride, v_block_stride,         \
            sequences, query_heads, key_heads, width, is_causal, window, scale                                         \
    }
