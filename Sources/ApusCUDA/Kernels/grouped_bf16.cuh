#pragma once
// Products of uneven groups of rows with their expert's weight, and the weights' gradients, bf16. See
// Ops/GroupedMatMul.swift; MegaBlocks section 6, grouped form.
//
// Tiles of 128 x 256 or 128 x 128 (product_bf16.cuh), counts and offsets read on the device: no block waits for the
// host, and an expert's last tile wastes at most 127 rows. The floor is 2 R N K operations over the tensor cores' rate
// through mma.sync (about 0.62 of what an H100 reaches through wgmma), or R K + R N + E N K elements read and written
// once.
//
// Launch: W threads and 768 W bytes of dynamic shared memory for tiles W wide. Rows and columns that are not
// multiples of 8 elements, or not on 16 bytes, take element-wise loads.

#include "grouped_tiles.cuh"
#include "product_bf16.cuh"

/// out[r] = op(weights[e]) x[r], or of x[rows[r]], for offsets[e] <= r < offsets[e + 1]. x (., K), out (R, N).
/// `transposed`: weights (E, N, K), else (E, K, N). Launch: ceil(N / tile_n) * (ceil(R / 128) + E) blocks, R an upper
/// bound.
template <int tile_n, bool transposed>
inline void grouped_product(
    bf16 *out, i64 out_stride, const bf16 *x, i64 x_stride, const i32 *rows, const bf16 *weights, const i32 *offsets,
    i64 experts, i64 n, i64 k) {
    extern __shared__ __align__(128) char ring[];
    const i64 columns = (n + tile_n - 1) / tile_n;
    const GroupedTile tile = find_tile(blockIdx.x, offsets, experts, tile_m, columns, tile_n);
    if (tile.expert < 0) return;
    using Tile = Product<tile_n, true, transposed>;
    const bf16 *weight = weights + tile.expert * n * k;
    const typename Tile::A a({x, x_stride, rows, tile.row + tile.rows, k}, tile.row, 0);
    const typename Tile::B b(
        transposed ? Stored{weight, k, nullptr, n, k} : Stored{weight, n, nullptr, k, n}, tile.column, 0);
    Tile product;
    product.run(ring, (k + tile_k - 1) / tile_k, [&](u32 to, i32 block) { a.start(to, block); },
                [&](u32 to, i32 block) { b.start(to, block); });
    product.finish(
        ring, out + tile.row * out_stride + tile.column, out_stride, tile.rows, n - tile.column, 1.0f, 0.0f);
}

/// gradient[e] (N, K) (+)= dy[group]^T x[group] (or x[rows[group]]); dy (R, N), x (., K). Launch: (ceil(N / 128) *
/// ceil(K / tile_n), E) blocks. The product of an expert without rows is 0.
template <int tile_n, class T>
inline void grouped_gradient(
    T *gradient, const bf16 *dy, i64 dy_stride, const bf16 *x, i64 x_stride, const i32 *rows, const i32 *offsets, i64 n,
    i64 k, bool adds) {
    extern __shared__ __align__(128) char ring[];
    const i64 row_tiles = (n + tile_m - 1) / tile_m, expert = blockIdx.y;
    const i64 row = blockIdx.x % row_tiles * tile_m, column = blockIdx.x / row_tiles * tile_n;
    const i64 begin = offsets[expert], end = offsets[expert + 1];
    if (begin == end && adds) return;
    using Tile = Product<tile_n, false, false>;
    const typename Tile::A a({dy, dy_stride, nullptr, end, n}, row, begin);
    const typename Tile::B b({x, x_stride, rows, end, k}, column, begin);
    Tile product;
    product.run(ring, (end - begin + tile_k - 1) / tile_k, [&](u32 to, i32 block) { a.start(to, block); },
                [&](u32 to, i32 block) { b.start(to, block); });
    product.finish(ring, gradient + (expert * n + row) * k + column, k, n - row, k - column, 1.0f, adds ? 1.0f : 0.0f);
}

#define DEFINE_GROUPED(name, tile_n, transposed)                                                                       \
    extern "C" __global__ void __launch_bounds__(tile_n, 1) name(                                                      \
        bf16 *out, i64 out_stride, const bf16 *x, i64 x_stride, const i32 *rows, const bf16 *weights,                  \
        const i32 *offsets, i64 experts, i64 n, i64 k) {                                                               \
        grouped_product<tile_n, transposed>(                                                                           \
            out, out_stride, x, x_stride, rows, weights, offsets, experts, n, k);                                      \
    }

#define DEFINE_GROUPED_GRADIENT(name, tile_n, T)                                                                       \
    extern "C" __global__ void __launch_bounds__(tile_n, 1) name(                                                      \
        T *gradient, const bf16 *dy, i64 dy_stride, const bf16 *x, i64 x_stride, const i32 *rows, const i32 *offsets,  \
        i64 n, i64 k, i64 adds) {                                                                                      \
        grouped_gradient<tile_n>(gradient, dy, dy_stride, x, x_stride, rows, offsets, n, k, adds);                     \
    }
