// The dense products of matmul_bf16.cu in plain f32. Launch: ceil(M / 128) * ceil(N / 128) blocks of 256 threads.

#include "product_f32.cuh"

template <bool a_transposed, bool b_transposed>
inline void matmul(
    float *c, i64 c_stride, const float *a, i64 a_stride, const i32 *a_rows, const float *b, i64 b_stride,
    const i32 *b_rows, i64 m, i64 n, i64 k, float alpha, float beta) {
    __shared__ __align__(16) float ring[2][2][tile_k][tile_mn];
    const i64 row_tiles = (m + tile_mn - 1) / tile_mn;
    const i64 row = blockIdx.x % row_tiles * tile_mn, column = blockIdx.x / row_tiles * tile_mn;
    const Loader<!a_transposed> left({a, a_stride, a_rows, a_transposed ? k : m, a_transposed ? m : k}, row, 0);
    const Loader<b_transposed> right({b, b_stride, b_rows, b_transposed ? n : k, b_transposed ? k : n}, column, 0);
    Product product;
    product.run(ring, (k + tile_k - 1) / tile_k, [&](Lanes &u, i64 block) { left.read(u, block); },
                [&](Lanes &u, i64 block) { right.read(u, block); }, left, right);
    product.finish(c + row * c_stride + column, c_stride, m - row, n - column, alpha, beta);
}

#define DEFINE(forms, a_transposed, b_transposed)                                                                      \
    extern "C" __global__ void __launch_bounds__(256) matmul_##forms##_f32(                                            \
        float *c, i64 c_stride, const float *a, i64 a_stride, const i32 *a_rows, const float *b, i64 b_stride,         \
        const i32 *b_rows, i64 m, i64 n, i64 k, float alpha, float beta) {                                             \
        matmul<a_transposed, b_transposed>(                                                                            \
            c, c_stride, a, a_stride, a_rows, b, b_stride, b_rows, m, n, k, alpha, beta);                              \
    }
DEFINE(nn, false, false)
DEFINE(nt, false, true)
DEFINE(tn, true, false)
DEFINE(tt, true, true)
