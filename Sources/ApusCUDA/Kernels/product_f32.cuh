#pragma once
// One tile of a matrix product in plain f32: C (128, 128) = A (128, k) B (k, 128), 256 threads of 8 x 8 sums each.
//
// Operands are stored as in product_bf16.cuh. Blocks of 16 k are read to registers while the block before is multiplied
// from shared memory (two buffers of 2 x 8 KB); 4 shared reads of 16 bytes feed 64 fused multiply-adds, so the adders
// are the limit: 67 TFLOP/s on an H100.

#include "types.cuh"

constexpr int tile_mn = 128, tile_k = 16, threads = 256;

/// A matrix as it is stored: element (r, c) is data[(rows ? rows[r] : r) * stride + c], and 0 outside of the limits.
struct Stored {
    const float *data;
    i64 stride;
    const i32 *rows;
    i64 row_limit, column_limit;
};

/// Eight elements of an operand's block for each thread: along k for k-major, along m or n else.
template <bool k_major> struct Loader {
    Stored m;
    bool vector;
    i64 row, column;
    i32 source;

    Loader(const Stored &stored, i64 mn, i64 k) : m(stored) {
        vector = is_aligned(m.data, m.stride) && (k_major ? k : mn) % 8 == 0;
        row = k_major ? mn + threadIdx.x / 2 : k + threadIdx.x / 16;
        column = k_major ? k + threadIdx.x % 2 * 8 : mn + threadIdx.x % 16 * 8;
        if (k_major) source = row_at(row);
    }

    i32 row_at(i64 r) const { return r >= m.row_limit ? -1 : m.rows ? m.rows[r] : (i32)r; }

    void read(Lanes &u, i64 block) const {
        const i64 from = k_major ? source : row_at(row + block * tile_k);
        const i64 at = k_major ? column + block * tile_k : column, left = from < 0 ? 0 : m.column_limit - at;
        if (left > 0) load(u, m.data + from * m.stride + at, left, vector);
        else u = Lanes{};
    }

    /// To shared memory as [k][m or n].
    static void write(float (*tile)[tile_mn], const Lanes &u) {
        if (k_major) {
#pragma unroll
            for (int l = 0; l < lanes; ++l) tile[threadIdx.x % 2 * 8 + l][threadIdx.x / 2] = u.x[l];
        } else {
            store(&tile[threadIdx.x / 16][threadIdx.x % 16 * 8], u, lanes, true);
        }
    }
};

struct Product {
    /// Rows y * 4 + {0..3} and 64 + y * 4 + {0..3}, columns likewise with x: what a warp reads at once has no
    /// conflicts.
    float c[8][8];
    int x, y;

    Product() : c{}, x(threadIdx.x % 16), y(threadIdx.x / 16) {}

    template <class ReadA, class ReadB, class A, class B>
    void run(float (*ring)[2][tile_k][tile_mn], i64 blocks, ReadA read_a, ReadB read_b, const A &, const B &) {
        Lanes u, v;
        if (blocks > 0) {
            read_a(u, (i64)0);
            read_b(v, (i64)0);
            A::write(ring[0][0], u);
            B::write(ring[0][1], v);
        }
        __syncthreads();
        for (i64 block = 0; block < blocks; ++block) {
            const int buffer = block & 1;
            if (block + 1 < blocks) {
                read_a(u, block + 1);
                read_b(v, block + 1);
            }
#pragma unroll
            for (int k = 0; k < tile_k; ++k) {
                const float *left = ring[buffer][0][k], *right = ring[buffer][1][k];
                const float4 a0 = *(const float4 *)(left + y * 4), a1 = *(const float4 *)(left + 64 + y * 4);
                const float4 b0 = *(const float4 *)(right + x * 4), b1 = *(const float4 *)(right + 64 + x * 4);
                const float a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
                const float b[8] = {b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w};
#pragma unroll
                for (int i = 0; i < 8; ++i) {
#pragma unroll
                    for (int j = 0; j < 8; ++j) c[i][j] += a[i] * b[j];
                }
            }
            if (block + 1 < blocks) {
                A::write(ring[buffer ^ 1][0], u);
                B::write(ring[buffer ^ 1][1], v);
            }
            __syncthreads();
        }
    }

    /// Writes the first `m` rows and `n` columns: out = alpha * C + beta * out.
    void finish(float *out, i64 stride, i64 m, i64 n, float alpha, float beta) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int row = i / 4 * 64 + y * 4 + i % 4;
            if (row >= m) continue;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int column = j / 4 * 64 + x * 4 + j % 4;
                if (column >= n) continue;
                float *to = out + row * stride + column;
                *to = beta != 0.0f ? alpha * c[i][j] + beta * *to : alpha * c[i][j];
            }
        }
    }
};
