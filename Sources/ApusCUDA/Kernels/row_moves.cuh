#pragma once
// Moving rows beside a product: what the warps do that have nothing to bring. The rows are nothing that the product reads or
// writes, so that nobody waits for anybody; the launch's end says that both are done.
//
// `row_moves` warps of each block take token after token; widths are multiples of 8 elements, addresses and strides of 16
// bytes, choices at most 32. See rows.cu for the same by launches of their own.

#include "reduce.cuh"

/// Warps of a block that move rows: those of the first four that do not bring operands.
constexpr int row_moves = 3;

/// Nothing to move.
struct NoMove {
    void operator()() const {}
};

/// Where the rows of tokens lie.
struct TokenRows {
    bf16 *rows;
    i64 stride;
    const i32 *slot_to_row;
    i64 tokens, choices, width;

    /// This warp's first token, and how far it is to the next.
    i64 first() const { return (i64)blockIdx.x * row_moves + threadIdx.x / 32 - 1; }
    i64 step() const { return (i64)gridDim.x * row_moves; }
};

/// rows[slot_to_row[t, k]] = x[t], as `scatter_rows` of rows.cu.
///
/// With little under way at a time: stores that come faster slow the product down by more than they gain.
struct ScatterMove {
    TokenRows to;
    const bf16 *x;
    i64 x_stride;

    void operator()() const {
        for (i64 token = to.first(); token < to.tokens; token += to.step()) {
            const bf16 *in = x + token * x_stride;
            for (i64 first = threadIdx.x % 32 * lanes; first < to.width; first += 1024) {
                uint4 chunks[4];
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    if (first + c * 256 < to.width) chunks[c] = *(const uint4 *)(in + first + c * 256);
                }
                for (i64 k = 0; k < to.choices; ++k) {
                    const i64 row = to.slot_to_row[token * to.choices + k];
                    if (row < 0) continue;
                    bf16 *out = to.rows + row * to.stride;
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        if (first + c * 256 < to.width) *(uint4 *)(out + first + c * 256) = chunks[c];
                    }
                }
            }
        }
    }
};

/// y[t] (+)= the sum over k of rows[slot_to_row[t, k]] in the order of k, as `combine_rows` of rows.cu.
///
/// The places of the next token's rows are asked for before this one's are summed, and eight rows before the first is added: a
/// warp shares its multiprocessor with nobody who would fill the wait.
struct CombineMove {
    TokenRows from;
    bf16 *y;
    i64 y_stride, adds;

    void operator()() const {
        const int lane = threadIdx.x % 32;
        const auto look = [&](i64 token) {
            return token < from.tokens && lane < from.choices ? from.slot_to_row[token * from.choices + lane] : -1;
        };
        i32 next = look(from.first());
        for (i64 token = from.first(); token < from.tokens; token += from.step()) {
            const i32 places = next;
            next = look(token + from.step());
            for (i64 first = lane * lanes; first - lane * lanes < from.width; first += 512) {
                sum(y + token * y_stride, first, places);
            }
        }
    }

    /// Elements `first` to `first` + 7 and the eight that are 256 on; lane k has the row of choice k. All lanes call.
    void sum(bf16 *out, i64 first, i32 places) const {
        const bool exists[2] = {first < from.width, first + 256 < from.width};
        Lanes sums[2] = {};
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            if (adds && exists[c]) load(sums[c], out + first + c * 256, lanes, true);
        }
        for (i64 some = 0; some < from.choices; some += 8) {
            uint4 chunks[8][2] = {};
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                if (some + k >= from.choices) break;
                const i32 row = __shfl_sync(all_lanes, places, (int)some + k);
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const bf16 *in = from.rows + row * from.stride + first + c * 256;
                    if (row >= 0 && exists[c]) chunks[k][c] = *(const uint4 *)in;
                }
            }
#pragma unroll
            for (int k = 0; k < 8; ++k) {
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const u32 *pairs = &chunks[k][c].x;
                    each(sums[c], [&](int l) {
                        return sums[c].x[l] + (l % 2 ? pair_high(pairs[l / 2]) : pair_low(pairs[l / 2]));
                    });
                }
            }
        }
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            if (exists[c]) store(out + first + c * 256, sums[c], lanes, true);
        }
    }
};
