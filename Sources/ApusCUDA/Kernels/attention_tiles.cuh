#pragma once
// Tiles of queries, keys and values in shared memory and the products between them, for the bf16 attention kernels.
//
// A tile is rows of W elements (W the head width rounded up to 32, 64, 128 or 256, zeros beyond the head). ldmatrix must
// meet no bank twice in 8 rows: between rows are 16 bytes of padding, which makes them an odd number of 16-byte steps
// long; or, `swizzled`, where there is no room for that, the low three bits of a chunk's place are those of its row xor
// its own. A warp's part of a result is `tiles` times 16 rows: what it reads of the right operand then serves several
// products.

#include "attention.cuh"
#include "mma.cuh"

/// 2^x in one instruction, whose error of 2^-22 is far below a probability's rounding.
inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// A (16, columns) result rounded to bf16, which is the left operand of the next product as it stands.
template <int columns> struct Rounded {
    u32 pairs[columns / 8][2];

    void round(const float (&c)[columns / 8][4]) {
#pragma unroll
        for (int j = 0; j < columns / 8; ++j) {
            pairs[j][0] = bf16_pair(c[j][0], c[j][1]);
            pairs[j][1] = bf16_pair(c[j][2], c[j][3]);
        }
    }
};

/// Tiles of the block's own rows, and of the `rows_walked` rows of the other side that come at a time through
/// `buffer_count` buffers, 1 or 2.
template <int W, int threads, int rows_walked = 64, int buffer_count = 2, bool swizzled = false> struct Tile {
    static constexpr int walked = rows_walked, buffers = buffer_count;
    static constexpr int pitch = W * 2 + (swizzled ? 0 : 16);
    static constexpr int bytes(int rows) { return rows * pitch; }
    static constexpr int chunks = W / 8, apart = threads / chunks;
    static_assert(!swizzled || chunks % 8 == 0, "chunks trade places within eights");
    /// Where a chunk of 8 elements of a row lies.
    static u32 place(int row, int chunk) { return row * pitch + (swizzled ? chunk ^ (row & 7) : chunk) * 16; }
    /// Bytes from a row's start to its columns from 16 `step` on, or to those 8 later, when `half` is 16 and not 0. Of
    /// `row` only the low three bits matter.
    static u32 columns(int row, u32 half, int step) {
        if (!swizzled) return half + step * 32;
        // The xor reaches four steps of 32 bytes; what is above them is a constant where the loop is unrolled.
        return (half ^ (row & 7) * 16 ^ (step & 3) * 32) + step / 4 * 128;
    }
    static char *aligned(char *memory) { return memory; }
    /// What this thread's copies brought is visible after the next barrier.
    static void publish() {}

    /// Copies `rows` rows to shared memory; `source(row)` is the address of a row or null for zeros.
    template <class Source> static void copy(u32 to, int rows, i64 width, bool vector, Source source) {
        const int chunk = threadIdx.x % chunks;
#pragma unroll 2
        for (int row = threadIdx.x / chunks; row < rows; row += apart) {
            const bf16 *from = source(row);
            const i64 left = from ? width - chunk * 8 : 0;
            copy_chunk(to + place(row, chunk), left > 0 ? from + chunk * 8 : nullptr, left, vector || left <= 0);
        }
    }

    /// Copies `rows` rows that lie `stride` apart from `from` on, those from `valid` on as zeros.
    template <int rows> static void copy_run(u32 to, const bf16 *from, i64 stride, int valid, i64 width, bool vector) {
        const int chunk = threadIdx.x % chunks, first = threadIdx.x / chunks;
        const i64 left = width - chunk * 8;
        const bf16 *at = from + first * stride + chunk * 8;
        u32 address = to + place(first, chunk);
        if (!vector) {
            copy(to, rows, width, false, [&](int row) { return row < valid ? from + row * stride : nullptr; });
            return;
        }
        const u32 bytes = left <= 0 ? 0 : left >= 8 ? 16 : (u32)left * 2;
#pragma unroll
        for (int i = 0; i < rows / apart; ++i) {
            const bool is_valid = first + i * apart < valid && bytes > 0;
            // Rows that are not a multiple of 8 apart have their chunks in other places.
            if (swizzled && apart % 8 > 0) address = to + place(first + i * apart, chunk);
            copy_async(address, is_valid ? at : nullptr, is_valid ? bytes : 0);
            at += apart * stride;
            address += apart * pitch;
        }
    }

    /// c (16 * tiles rows from `row`, a multiple of 16, walked) += a b^T over W: a tile rows by b tile rows.
    template <int tiles, int unrolled>
    static void multiply_transposed(float (&c)[tiles][walked / 8][4], u32 a, int row, u32 b) {
        const int lane = threadIdx.x % 32;
        a += (row + lane % 16) * pitch;
        b += (lane / 16 * 8 + lane % 8) * pitch;
        // Unrolled whole, the loads of later k may take the registers that the sums need.
#pragma unroll unrolled
        for (int k = 0; k < W / 16; ++k) {
            u32 left[tiles][4];
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
                load_matrices(left[i], a + i * 16 * pitch + columns(lane, lane / 16 * 16, k));
            }
#pragma unroll
            for (int j = 0; j < walked / 16; ++j) {
                u32 right[4];
                load_matrices(right, b + j * 16 * pitch + columns(lane, lane / 8 % 2 * 16, k));
#pragma unroll
                for (int i = 0; i < tiles; ++i) {
                    multiply_add(c[i][2 * j], left[i], right[0], right[1]);
                    multiply_add(c[i][2 * j + 1], left[i], right[2], right[3]);
                }
            }
        }
    }

    /// c (16 * tiles, W) += p b, p (16 * tiles, walked) the rounded registers of an earlier result, b a walked tile.
    template <int tiles> static void multiply(float (&c)[tiles][W / 8][4], const Rounded<walked> (&p)[tiles], u32 b) {
        const int lane = threadIdx.x % 32;
        b += (lane / 8 % 2 * 8 + lane % 8) * pitch;
#pragma unroll
        for (int k = 0; k < walked / 16; ++k) {
#pragma unroll
            for (int j = 0; j < W / 16; ++j) {
                u32 right[4];
                load_transposed(right, b + k * 16 * pitch + columns(lane, lane / 16 * 16, j));
#pragma unroll
                for (int i = 0; i < tiles; ++i) {
                    const u32 left[4] = {
                        p[i].pairs[2 * k][0], p[i].pairs[2 * k][1], p[i].pairs[2 * k + 1][0], p[i].pairs[2 * k + 1][1]};
                    multiply_add(c[i][2 * j], left, right[0], right[1]);
                    multiply_add(c[i][2 * j + 1], left, right[2], right[3]);
                }
            }
        }
    }
};

/// Writes two neighbouring elements of a row at `column`, those within the width.
inline void store_pair(bf16 *row, int column, i64 width, float low, float high) {
    if (column + 1 < width && ((u64)(row + column) & 3) == 0) {
        *(u32 *)(row + column) = bf16_pair(low, high);
        return;
    }
    if (column < width) row[column] = from_float<bf16>(low);
    if (column + 1 < width) row[column + 1] = from_float<bf16>(high);
}
