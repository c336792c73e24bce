#pragma once
// One tile of a matrix product on the tensor cores, bf16 in, f32 sums: C (128, BN) = A (128, k) B (k, BN).
//
// mma.sync m16n8k16 from sm_80 on. A warp holds 64 x 64 of C in 128 registers, so that each k of 16 takes 8 ldmatrix
// for 32 products; BN is 256 (8 warps, one block a multiprocessor) or 128 (4 warps). Blocks of 64 k wait in a ring of
// shared memory filled by cp.async. A tile of 256 reads 48 KB for each 4.2 MFLOP: 4.6 TB/s from L2 at 400 TFLOP/s, a
// tile of 128 6.1.
//
// An operand is a stored matrix, rows of contiguous columns, that either has k along its columns ("k-major": ldmatrix)
// or along its rows ("mn-major": ldmatrix.trans); nothing is ever moved to be read transposed. Rows may be picked by an
// index. Shared rows are cut in 16-byte chunks, chunk c of row r at c ^ (r & 7): eight rows of one chunk, which is what
// ldmatrix reads, then lie in different banks, in both forms.
//
// The order of k is that of the operands, whatever M and N: a row's sums have the same bits in any batch.

#include "mma.cuh"

constexpr int tile_m = 128, tile_k = 64;

/// A matrix as it is stored: element (r, c) is data[(rows ? rows[r] : r) * stride + c], and 0 outside of the limits.
struct Stored {
    const bf16 *data;
    i64 stride;
    const i32 *rows;
    i64 row_limit, column_limit;
};

/// Where chunk c of shared row r lies, in bytes, for rows of `chunks` chunks.
template <int chunks> inline u32 chunk_offset(int r, int c) { return (u32)(r * chunks + (c ^ (r & 7))) * 16; }

/// Brings one operand's blocks of 64 k to shared memory, `extent` (tile_m or BN) of m or n wide.
///
/// What does not change from block to block is worked out once and kept in few registers, for the sums need most of
/// them. A thread's rows are a multiple of 8 apart, so that its chunk has the same place in each.
template <bool k_major, int extent, int threads> struct Loader {
    static constexpr int chunks = k_major ? tile_k / 8 : extent / 8;
    static constexpr int shared_rows = k_major ? extent : tile_k;
    static constexpr int rows_apart = threads / chunks, count = shared_rows / rows_apart;
    static constexpr int bytes = shared_rows * chunks * 16;
    static_assert(rows_apart % 8 == 0, "the swizzle repeats every 8 rows");
    /// Rows of x are often picked, and their numbers are the same for all k; those of weights never are.
    static constexpr bool keeps_rows = k_major && extent == tile_m;

    const bf16 *data;
    const i32 *rows;
    i32 stride, row_limit, column_limit, first_row, first_column;
    bool vector;
    i32 kept[keeps_rows ? count : 1];

    /// `mn` is where the tile begins among the rows (k-major) or columns (mn-major); k starts at `k`.
    Loader(const Stored &m, i64 mn, i64 k)
        : data(m.data), rows(m.rows), stride((i32)m.stride), row_limit((i32)m.row_limit),
          column_limit((i32)m.column_limit) {
        vector = is_aligned(m.data, m.stride) && (k_major ? k : mn) % 8 == 0;
        first_row = (i32)(k_major ? mn : k) + threadIdx.x / chunks;
        first_column = (i32)(k_major ? k : mn) + threadIdx.x % chunks * 8;
        if (keeps_rows) {
#pragma unroll
            for (int i = 0; i < count; ++i) kept[i] = row_at(first_row + i * rows_apart);
        }
    }

    i32 row_at(i32 r) const { return r >= row_limit ? -1 : rows ? rows[r] : r; }

    /// Starts copying the block of 64 k number `block` to shared memory at `to`.
    void start(u32 to, i32 block) const {
        const i32 column = first_column + (k_major ? block * tile_k : 0), left = column_limit - column;
        const i32 row = first_row + (k_major ? 0 : block * tile_k);
        const u32 address = to + chunk_offset<chunks>(threadIdx.x / chunks, threadIdx.x % chunks);
        constexpr u32 step = rows_apart * chunks * 16;
        const bf16 *base = data + column;
        if (!vector) {
#pragma unroll 1
            for (int i = 0; i < count; ++i) {
                const i32 source = row_at(row + i * rows_apart);
                copy_chunk(address + i * step, base + (i64)max(source, 0) * stride, source < 0 ? 0 : left, false);
            }
            return;
        }
        const u32 size = left <= 0 ? 0 : left >= 8 ? 16 : (u32)left * 2;
#pragma unroll
        for (int i = 0; i < count; ++i) {
            const i32 source = keeps_rows ? kept[i] : row_at(row + i * rows_apart);
            const bool is_inside = source >= 0 && size > 0;
            copy_async(address + i * step, is_inside ? base + (i64)source * stride : data, is_inside ? size : 0);
        }
    }
};

/// The tile's threads, shared memory and registers.
template <int BN, bool a_k_major, bool b_k_major> struct Product {
    static constexpr int threads = BN, stages = BN == 256 ? 4 : 3;
    using A = Loader<a_k_major, tile_m, threads>;
    using B = Loader<b_k_major, BN, threads>;
    static constexpr int stage_bytes = A::bytes + B::bytes, shared_bytes = stages * stage_bytes;
    /// Floats between rows of the finished tile in shared memory: 8 beyond a multiple of 32 keeps warps free of
    /// conflicts.
    static constexpr int pitch = BN + 8;
    static_assert(tile_m * pitch * 4 <= shared_bytes, "the finished tile takes the place of the ring");

    /// [m of 16][n of 8][fragment]; a warp's 64 x 64.
    float c[4][8][4];
    int warp_m, warp_n, lane;

    Product() {
        warp_m = threadIdx.x / 32 % 2 * 64;
        warp_n = threadIdx.x / 64 * 64;
        lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 4 * 8 * 4; ++i) c[i / 32][i / 4 % 8][i % 4] = 0;
    }

    void multiply_block(u32 a, u32 b) {
        // A lane's row within eight is the same in every fragment, and with it the swizzle: k and m or n move whole
        // steps.
        const int group = lane / 8, within = lane % 8;
        const u32 a_row = a + (a_k_major ? warp_m + lane % 16 : group / 2 * 8 + within) * A::chunks * 16;
        const u32 b_row = b + (b_k_major ? warp_n + group / 2 * 8 + within : group % 2 * 8 + within) * B::chunks * 16;
        const u32 a_chunk = (a_k_major ? lane / 16 : warp_m / 8 + group % 2) ^ within;
        const u32 b_chunk = (b_k_major ? group % 2 : warp_n / 8 + group / 2) ^ within;
#pragma unroll
        for (int k = 0; k < tile_k / 16; ++k) {
            u32 left[4][4], right[4][4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (a_k_major) load_matrices(left[i], a_row + i * 16 * A::chunks * 16 + (a_chunk ^ (k * 2)) * 16);
                else load_transposed(left[i], a_row + k * 16 * A::chunks * 16 + (a_chunk ^ (i * 2)) * 16);
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (b_k_major) load_matrices(right[j], b_row + j * 16 * B::chunks * 16 + (b_chunk ^ (k * 2)) * 16);
                else load_transposed(right[j], b_row + k * 16 * B::chunks * 16 + (b_chunk ^ (j * 2)) * 16);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const u32 *pair = right[j / 2] + j % 2 * 2;
                    multiply_add(c[i][j], left[i], pair[0], pair[1]);
                }
            }
        }
    }

    /// Adds the product over `blocks` blocks of 64 k. `a(stage address, block)` and `b` start the copies of a block.
    template <class StartA, class StartB> void run(char *ring, i32 blocks, StartA a, StartB b) {
        const u32 base = shared_address(ring);
#pragma unroll
        for (int s = 0; s < stages - 1; ++s) {
            if (s < blocks) {
                a(base + s * stage_bytes, s);
                b(base + s * stage_bytes + A::bytes, s);
            }
            commit_copies();
        }
        int stage = 0, next = stages - 1;
        for (i32 block = 0; block < blocks; ++block) {
            wait_copies<stages - 2>();
            __syncthreads();
            if (block + stages - 1 < blocks) {
                a(base + next * stage_bytes, block + stages - 1);
                b(base + next * stage_bytes + A::bytes, block + stages - 1);
            }
            commit_copies();
            multiply_block(base + stage * stage_bytes, base + stage * stage_bytes + A::bytes);
            stage = stage + 1 == stages ? 0 : stage + 1;
            next = next + 1 == stages ? 0 : next + 1;
        }
        wait_copies<0>();
        __syncthreads();
    }

    /// Writes the first `m` rows and `n` columns: out = alpha * C + beta * out, `out` at the tile's first element.
    ///
    /// Through shared memory, so that rows are read and written in 16 bytes and a sum is rounded once.
    template <class T> void finish(char *ring, T *out, i64 stride, i64 m, i64 n, float alpha, float beta) {
        float *tile = (float *)ring;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float *at = tile + (warp_m + i * 16 + lane / 4) * pitch + warp_n + j * 8 + lane % 4 * 2;
                *(float2 *)at = make_float2(c[i][j][0], c[i][j][1]);
                *(float2 *)(at + 8 * pitch) = make_float2(c[i][j][2], c[i][j][3]);
            }
        }
        __syncthreads();
        const bool vector = is_aligned(out, stride);
        for (int i = threadIdx.x; i < tile_m * BN / lanes; i += threads) {
            const int row = i / (BN / lanes), column = i % (BN / lanes) * lanes;
            if (row >= m || column >= n) continue;
            Lanes u, old;
            load(u, tile + row * pitch + column, lanes, true);
            T *to = out + row * stride + column;
            if (beta != 0.0f) {
                load(old, to, n - column, vector);
                each(u, [&](int l) { return alpha * u.x[l] + beta * old.x[l]; });
            } else {
                each(u, [&](int l) { return alpha * u.x[l]; });
            }
            store(to, u, n - column, vector);
        }
    }
};
