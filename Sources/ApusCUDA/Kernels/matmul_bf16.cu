// Dense products of our own: c = alpha op(a) op(b) + beta c, one kernel and one order of k for every size, so that a
// row has the same bits whatever else is in the batch. For batch-invariant runs, and where cuBLASLt is missing. See
// Ops/MatMul.swift.
//
// a is (M, K) as op says, b (K, N). Suffixes: n means stored as the product reads it (rows of K for a, rows of N for
// b), t stored transposed; `rows` (or null) picks the stored rows of a, `b_rows` those of b. bf16 launch: ceil(M / 128)
// * ceil(N / 128) blocks of 128 threads, 98,304 bytes of dynamic shared memory (product_bf16.cuh); out f32 or bf16.
// Floor as there.

#include "product_bf16.cuh"

constexpr int tile_n = 128;

template <class T, bool a_transposed, bool b_transposed>
inline void matmul(
    T *c, i64 c_stride, const bf16 *a, i64 a_stride, const i32 *a_rows, const bf16 *b, i64 b_stride, const i32 *b_rows,
    i64 m, i64 n, i64 k, float alpha, float beta) {
    extern __shared__ __align__(128) char ring[];
    const i64 row_tiles = (m + tile_m - 1) / tile_m;
    const i64 row = blockIdx.x % row_tiles * tile_m, column = blockIdx.x / row_tiles * tile_n;
    using Tile = Product<tile_n, !a_transposed, b_transposed>;
    const typename Tile::A left({a, a_stride, a_rows, a_transposed ? k : m, a_transposed ? m : k}, row, 0);
    const typename Tile::B right({b, b_stride, b_rows, b_transposed ? n : k, b_transposed ? k : n}, column, 0);
    Tile product;
    product.run(ring, (k + tile_k - 1) / tile_k, [&](u32 to, i32 block) { left.start(to, block); },
                [&](u32 to, i32 block) { right.start(to, block); });
    product.finish(ring, c + row * c_stride + column, c_stride, m - row, n - column, alpha, beta);
}

#define DEFINE(forms, a_transposed, b_transposed, suffix, T)                                                           \
    extern "C" __global__ void __launch_bounds__(128) matmul_##forms##_bf16_##suffix(                                  \
        T *c, i64 c_stride, const bf16 *a, i64 a_stride, const i32 *a_rows, const bf16 *b, i64 b_stride,               \
        const i32 *b_rows, i64 m, i64 n, i64 k, float alpha, float beta) {                                             \
        matmul<T, a_transposed, b_transposed>(                                                                         \
            c, c_stride, a, a_stride, a_rows, b, b_stride, b_rows, m, n, k, alpha, beta);                              \
    }
#define DEFINE_FORMS(suffix, T)                                                                                        \
    DEFINE(nn, false, false, suffix, T)                                                                                \
    DEFINE(nt, false, true, suffix, T)                                                                                 \
    DEFINE(tn, true, false, suffix, T)                                                                                 \
    DEFINE(tt, true, true, suffix, T)
DEFINE_FORMS(bf16, bf16)
DEFINE_FORMS(f32, float)
