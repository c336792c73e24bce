// The grouped products of grouped_bf16.cu in plain f32: same operands, same order of the blocks.
//
// Tiles of 128 x 128 (product_f32.cuh). Launch: 256 threads, no dynamic shared memory. The floor is 2 R N K operations
// over the f32 adders' rate, 67 TFLOP/s on an H100.

#include "grouped_tiles.cuh"
#include "product_f32.cuh"

/// As `grouped_product` of grouped_bf16.cu. Launch: ceil(N / 128) * (ceil(R / 128) + E) blocks, R an upper bound.
template <bool transposed>
inline void grouped_product(
    float *out, i64 out_stride, const float *x, i64 x_stride, const i32 *rows, const float *weights,
    const i32 *offsets, i64 experts, i64 n, i64 k) {
    __shared__ __align__(16) float ring[2][2][tile_k][tile_mn];
    const i64 columns = (n + tile_mn - 1) / tile_mn;
    const GroupedTile tile = find_tile(blockIdx.x, offsets, experts, tile_mn, columns, tile_mn);
    if (tile.expert < 0) return;
    const float *weight = weights + tile.expert * n * k;
    const Loader<true> a({x, x_stride, rows, tile.row + tile.rows, k}, tile.row, 0);
    const Loader<transposed> b(
        transposed ? Stored{weight, k, nullptr, n, k} : Stored{weight, n, nullptr, k, n}, tile.column, 0);
    Product product;
    product.run(ring, (k + tile_k - 1) / tile_k, [&](Lanes &u, i64 block) { a.read(u, block); },
                [&](Lanes &u, i64 block) { b.read(u, block); }, a, b);
    product.finish(out + tile.row * out_stride + tile.column, out_stride, tile.rows, n - tile.column, 1.0f, 0.0f);
}

#define DEFINE(name, transposed)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) name(                                                            \
        float *out, i64 out_stride, const float *x, i64 x_stride, const i32 *rows, const float *weights,               \
        const i32 *offsets, i64 experts, i64 n, i64 k) {                                                               \
        grouped_product<transposed>(out, out_stride, x, x_stride, rows, weights, offsets, experts, n, k);              \
    }
DEFINE(grouped_transposed_f32, true)
DEFINE(grouped_f32, false)

/// As `grouped_gradient` of grouped_bf16.cu. Launch: (ceil(N / 128) * ceil(K / 128), E) blocks.
extern "C" __global__ void __launch_bounds__(256) grouped_gradient_f32(
    float *gradient, const float *dy, i64 dy_stride, const float *x, i64 x_stride, const i32 *rows, const i32 *offsets,
    i64 n, i64 k, i64 adds) {
    __shared__ __align__(16) float ring[2][2][tile_k][tile_mn];
    const i64 row_tiles = (n + tile_mn - 1) / tile_mn, expert = blockIdx.y;
    const i64 row = blockIdx.x % row_tiles * tile_mn, column = blockIdx.x / row_tiles * tile_mn;
    const i64 begin = offsets[expert], end = offsets[expert + 1];
    if (begin == end && adds) return;
    const Loader<false> a({dy, dy_stride, nullptr, end, n}, row, begin);
    const Loader<false> b({x, x_stride, rows, end, k}, column, begin);
    Product product;
    product.run(ring, (end - begin + tile_k - 1) / tile_k, [&](Lanes &u, i64 block) { a.read(u, block); },
                [&](Lanes &u, i64 block) { b.read(u, block); }, a, b);
    product.finish(gradient + (expert * n + row) * k + column, k, n - row, k - column, 1.0f, adds ? 1.0f : 0.0f);
}
