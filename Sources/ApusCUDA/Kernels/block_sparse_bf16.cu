// Products with one block-sparse matrix on the tensor cores, for blocks of a multiple of 64. See
// Ops/BlockSparse/BlockSparse.swift; MegaBlocks section 5.
//
// Tiles of 128 x 128 (product_bf16.cuh), 128 threads, 98,304 bytes of dynamic shared memory. With t = ceil(b / 128):
//   sdd   P t t blocks: each computes one tile of one block
//   dsd   (ceil(Q / 128), M t): a block row's blocks are one run of k
//   dstd  (ceil(Q / 128), N t): a block column's blocks, found through the transpose index, are one run of k
// A block reads its place from the topology; blocks past the last return at once. The floor is 2 P b b Q operations.

#include "block_sparse.cuh"
#include "product_bf16.cuh"

constexpr int tile_n = 128;

/// The blocks of `a b^T`: a (R, Q), stored transposed or not, its stored rows perhaps picked by `a_rows`; b a stack.
/// Rows of a ragged block that stand for no row become 0.
template <bool a_transposed, bool b_transposed>
inline void sdd(
    bf16 *values, const bf16 *a, i64 a_stride, const i32 *a_rows, const Stack<const bf16> &b, const Topology &t) {
    extern __shared__ __align__(128) char ring[];
    const i64 tiles = (t.block + 127) / 128, p = blockIdx.x / (tiles * tiles), place = blockIdx.x % (tiles * tiles);
    if (p >= t.blocks()) return;
    const i64 row = t.row_indices[p], begin = t.row_starts[row], end = t.row_starts[row + 1], q = b.dense_extent();
    const i64 m = place / tiles * 128, n = place % tiles * 128, column = t.column_indices[p] * t.block + n;
    using Tile = Product<tile_n, !a_transposed, !b_transposed>;
    const typename Tile::A left({a, a_stride, a_rows, a_transposed ? q : end, a_transposed ? end : q}, begin + m, 0);
    // From the tile's first column on, a stack is a matrix with k along its columns, or, transposed, along its rows.
    const Stored weights = {
        b.at(column, 0), b.second, nullptr, b_transposed ? q : t.block - n, b_transposed ? t.block - n : q};
    const typename Tile::B right(weights, 0, 0);
    Tile product;
    product.run(ring, (q + tile_k - 1) / tile_k, [&](u32 to, i32 k) { left.start(to, k); },
                [&](u32 to, i32 k) { right.start(to, k); });
    const i64 stride = t.columns(row) * t.block;
    product.finish(
        ring, values + t.value(row, p) + m * stride + n, stride, t.block - m, t.block - n, 1.0f, 0.0f);
}

/// c (+)= S b, c (R, Q); `is_result_transposed`: c (Q, R), which is a^T S^T.
template <bool b_transposed, bool is_result_transposed, class T>
inline void dsd(T *c, i64 c_stride, const bf16 *values, const Stack<const bf16> &b, const Topology &t, i64 adds) {
    extern __shared__ __align__(128) char ring[];
    const i64 tiles = (t.block + 127) / 128, row = blockIdx.y / tiles, first = blockIdx.y % tiles * 128;
    const i64 rows = t.dense_rows(row), q = b.dense_extent(), dense = blockIdx.x * 128LL;
    if (first >= rows) return;
    const i64 stride = t.columns(row) * t.block;
    const i32 k_blocks = (i32)(stride / tile_k), per_block = (i32)(t.block / tile_k);
    const Stored sparse = {values + t.row_offsets[row] * t.block * t.block, stride, nullptr, rows, stride};
    const Stored weights = {b.data, b.second, nullptr, b_transposed ? q : t.block, b_transposed ? t.block : q};
    const i32 *columns = t.column_indices + t.row_offsets[row];
    // Each block of 64 k lies within one block column: the stack is seen from that column's first element.
    auto from_column = [&](auto &loader, u32 to, i32 k) {
        loader.data = b.at(columns[k / per_block] * t.block, 0);
        loader.start(to, k % per_block);
    };
    const i64 out_row = t.row_starts[row] + first;
    const float beta = adds ? 1.0f : 0.0f;
    if (is_result_transposed) {
        using Tile = Product<tile_n, b_transposed, true>;
        typename Tile::A left(weights, dense, 0);
        const typename Tile::B right(sparse, first, 0);
        Tile product;
        product.run(ring, k_blocks, [&](u32 to, i32 k) { from_column(left, to, k); },
                    [&](u32 to, i32 k) { right.start(to, k); });
        product.finish(ring, c + dense * c_stride + out_row, c_stride, q - dense, rows - first, 1.0f, beta);
    } else {
        using Tile = Product<tile_n, true, b_transposed>;
        const typename Tile::A left(sparse, first, 0);
        typename Tile::B right(weights, dense, 0);
        Tile product;
        product.run(ring, k_blocks, [&](u32 to, i32 k) { left.start(to, k); },
                    [&](u32 to, i32 k) { from_column(right, to, k); });
        product.finish(ring, c + out_row * c_stride + dense, c_stride, rows - first, q - dense, 1.0f, beta);
    }
}

/// c (+)= S^T b, b (R, Q), its rows perhaps picked; c a stack, transposed or not. A block of 64 k lies within one block
/// of S; both operands end with that block's dense rows.
template <bool c_transposed, class T>
inline void dstd(
    const Stack<T> &c, const bf16 *values, const bf16 *b, i64 b_stride, const i32 *b_rows, const Topology &t,
    i64 adds) {
    extern __shared__ __align__(128) char ring[];
    const i64 tiles = (t.block + 127) / 128, column = blockIdx.y / tiles, first = blockIdx.y % tiles * 128;
    const i64 begin = t.column_offsets[column], count = t.column_offsets[column + 1] - begin;
    const i64 q = c.dense_extent(), dense = blockIdx.x * 128LL;
    const i32 per_block = (i32)(t.block / tile_k), k_blocks = (i32)count * per_block;
    if (count == 0 && adds) return;
    auto from_block = [&](auto &loader, u32 to, i32 k) {
        const i64 p = t.transpose_indices[begin + k / per_block], row = t.row_indices[p];
        loader.data = values + t.value(row, p);
        loader.stride = (i32)(t.columns(row) * t.block);
        loader.row_limit = (i32)t.dense_rows(row);
        loader.start(to, k % per_block);
    };
    auto from_rows = [&](auto &loader, u32 to, i32 k) {
        const i64 row = t.row_indices[t.transpose_indices[begin + k / per_block]];
        loader.row_limit = t.row_starts[row + 1];
        loader.first_row = t.row_starts[row] + threadIdx.x / 16;
        loader.start(to, k % per_block);
    };
    const Stored sparse = {values, t.block, nullptr, 0, t.block}, rows = {b, b_stride, b_rows, 0, q};
    const float beta = adds ? 1.0f : 0.0f;
    T *out = c.at(column * t.block + first, 0);
    using Tile = Product<tile_n, false, false>;
    Tile product;
    if (c_transposed) {
        typename Tile::A left(rows, dense, 0);
        typename Tile::B right(sparse, first, 0);
        product.run(ring, k_blocks, [&](u32 to, i32 k) { from_rows(left, to, k); },
                    [&](u32 to, i32 k) { from_block(right, to, k); });
        product.finish(ring, out + dense * c.second, c.second, q - dense, t.block - first, 1.0f, beta);
    } else {
        typename Tile::A left(sparse, first, 0);
        typename Tile::B right(rows, dense, 0);
        product.run(ring, k_blocks, [&](u32 to, i32 k) { from_block(left, to, k); },
                    [&](u32 to, i32 k) { from_rows(right, to, k); });
        product.finish(ring, out + dense, c.second, t.block - first, q - dense, 1.0f, beta);
    }
}

/// Suffixes: how the dense matrix and the stack are stored, n as they stand or t transposed.
#define DEFINE_SDD(forms, a_transposed, b_transposed)                                                                  \
    extern "C" __global__ void __launch_bounds__(128) sdd_##forms##_bf16(                                              \
        bf16 *values, const bf16 *a, i64 a_stride, const i32 *a_rows, const bf16 *b, i64 first, i64 second,            \
        TOPOLOGY_ARGUMENTS) {                                                                                          \
        sdd<a_transposed, b_transposed>(values, a, a_stride, a_rows, {b, first, second, b_transposed}, TOPOLOGY);      \
    }
DEFINE_SDD(nn, false, false)
DEFINE_SDD(nt, false, true)
DEFINE_SDD(tn, true, false)
DEFINE_SDD(tt, true, true)

/// `dsd`: c (R, Q); `ddst`: c (Q, R).
#define DEFINE_DSD(name, b_transposed, is_result_transposed)                                                           \
    extern "C" __global__ void __launch_bounds__(128) name(                                                            \
        bf16 *c, i64 c_stride, const bf16 *values, const bf16 *b, i64 first, i64 second, i64 adds,                     \
        TOPOLOGY_ARGUMENTS) {                                                                                          \
        dsd<b_transposed, is_result_transposed>(                                                                       \
            c, c_stride, values, {b, first, second, b_transposed}, TOPOLOGY, adds);                                    \
    }
DEFINE_DSD(dsd_n_bf16, false, false)
DEFINE_DSD(dsd_t_bf16, true, false)
DEFINE_DSD(ddst_n_bf16, false, true)
DEFINE_DSD(ddst_t_bf16, true, true)

/// Named by the form of c and by its type, a weight's gradient.
#define DEFINE_DSTD(form, c_transposed, suffix, T)                                                                     \
    extern "C" __global__ void __launch_bounds__(128) dstd_##form##_bf16_##suffix(                                     \
        T *c, i64 first, i64 second, const bf16 *values, const bf16 *b, i64 b_stride, const i32 *b_rows, i64 adds,     \
        TOPOLOGY_ARGUMENTS) {                                                                                          \
        dstd<c_transposed, T>(                                                                                         \
            {c, first, second, c_transposed}, values, b, b_stride, b_rows, TOPOLOGY, adds);                            \
    }
DEFINE_DSTD(n, false, bf16, bf16)
DEFINE_DSTD(t, true, bf16, bf16)
DEFINE_DSTD(n, false, f32, float)
DEFINE_DSTD(t, true, f32, float)
