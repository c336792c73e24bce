#pragma once
// Moving rows between token order and expert order as rows.cu does, by the warps of a product that have nothing to bring: the
// product is bound by the tensor cores, the move by memory. Rows on 16 bytes, at most 32 choices.

#include "reduce.cuh"

/// No move.
struct NoMove {
    void run(int, int) const {}
};

/// rows[slot_to_row[t, k]] = x[t]; warp `warp` of `warps` takes its tokens.
struct ScatterMove {
    bf16 *rows;
    i64 rows_stride;
    const bf16 *x;
    i64 x_stride;
    const i32 *slot_to_row;
    i64 tokens, choices, width;

    void run(int warp, int warps) const {
        const int lane = threadIdx.x % 32;
        const i64 chunks = width / 8;
        for (i64 token = warp; token < tokens; token += warps) {
            const i32 mine = lane < choices ? slot_to_row[token * choices + lane] : -1;
            const uint4 *in = (const uint4 *)(x + token * x_stride);
            for (i64 first = lane; first - lane < chunks; first += 128) {
                uint4 v[4];
#pragma unroll
                for (int u = 0; u < 4; ++u) {
                    if (first + u * 32 < chunks) v[u] = in[first + u * 32];
                }
                for (int k = 0; k < choices; ++k) {
                    const i64 row = __shfl_sync(all_lanes, mine, k);
                    if (row < 0) continue;
                    uint4 *out = (uint4 *)(rows + row * rows_stride);
#pragma unroll
                    for (int u = 0; u < 4; ++u) {
                        if (first + u * 32 < chunks) out[first + u * 32] = v[u];
                    }
                }
            }
        }
    }
};

/// y[t] (+)= the sum over k of rows[slot_to_row[t, k]], in the order of k.
struct CombineMove {
    bf16 *y;
    i64 y_stride;
    const bf16 *rows;
    i64 rows_stride;
    const i32 *slot_to_row;
    i64 tokens, choices, width, adds;

    void run(int warp, int warps) const {
        const int lane = threadIdx.x % 32;
        const i64 chunks = width / 8;
        for (i64 token = warp; token < tokens; token += warps) {
            const i32 mine = lane < choices ? slot_to_row[token * choices + lane] : -1;
            for (i64 at = lane; at - lane < chunks; at += 32) {
                uint4 *out = (uint4 *)(y + token * y_stride) + at;
                float sum[8] = {};
                if (adds && at < chunks) add(sum, *out);
                for (int first = 0; first < choices; first += 8) {
                    uint4 v[8];
#pragma unroll
                    for (int u = 0; u < 8; ++u) {
                        const i64 row = __shfl_sync(all_lanes, mine, (first + u) % 32);
                        v[u] = make_uint4(0, 0, 0, 0);
                        if (first + u < choices && row >= 0 && at < chunks) {
                            v[u] = ((const uint4 *)(rows + row * rows_stride))[at];
                        }
                    }
#pragma unroll
                    for (int u = 0; u < 8; ++u) add(sum, v[u]);
                }
                if (at < chunks) {
                    *out = make_uint4(bf16_pair(sum[0], sum[1]), bf16_pair(sum[2], sum[3]), bf16_pair(sum[4], sum[5]),
                                      bf16_pair(sum[6], sum[7]));
                }
            }
        }
    }

    static void add(float (&sum)[8], uint4 v) {
        const u32 *pair = &v.x;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sum[2 * j] += pair_low(pair[j]);
            sum[2 * j + 1] += pair_high(pair[j]);
        }
    }
};
