// Products with one block-sparse matrix by their definition: f32, and bf16 where block_sparse_bf16.cu does not apply
// (blocks that are no multiple of 64; a dense matrix of dstd stored transposed). See Ops/BlockSparse/BlockSparse.swift.
//
// A thread to an element of the result, sums in f32 in the order of the blocks; neighbours share reads through cache.
// Launch: 256 threads;
//   sdd   ceil(b b / 256) * P blocks
//   dsd   (R, ceil(Q / 256)) blocks, R the bound on the dense rows
//   dstd  (N b, ceil(Q / 256)) blocks
// One to two TFLOP/s: the floor is far below.

#include "block_sparse.cuh"

/// Element (row, column) of a matrix stored transposed or not, with its stored rows perhaps picked.
template <class T> struct Dense {
    const T *data;
    i64 stride;
    const i32 *rows;
    i64 is_transposed;

    float at(i64 row, i64 column) const {
        const i64 stored = is_transposed ? column : row, other = is_transposed ? row : column;
        return to_float(data[(rows ? rows[stored] : stored) * stride + other]);
    }
};

template <class T> inline void sdd(T *values, const Dense<T> &a, const Stack<const T> &b, const Topology &t) {
    const i64 per_block = (t.block * t.block + 255) / 256, p = blockIdx.x / per_block;
    const i64 at = blockIdx.x % per_block * 256 + threadIdx.x, m = at / t.block, n = at - m * t.block;
    if (p >= t.blocks() || m >= t.block) return;
    const i64 row = t.row_indices[p], column = t.column_indices[p] * t.block + n, q = b.dense_extent();
    float sum = 0;
    if (m < t.dense_rows(row)) {
        for (i64 k = 0; k < q; ++k) sum += a.at(t.row_starts[row] + m, k) * to_float(*b.at(column, k));
    }
    values[t.value(row, p) + m * t.columns(row) * t.block + n] = from_float<T>(sum);
}

/// The block row of a dense row, by halving; the last of those that begin there, as empty ones precede it.
inline i64 block_row(const Topology &t, i64 dense) {
    i64 low = 0, high = t.block_rows;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (t.row_starts[middle] <= dense) low = middle;
        else high = middle;
    }
    return low;
}

template <class T>
inline void dsd(
    T *c, i64 c_stride, i64 is_result_transposed, const T *values, const Stack<const T> &b, i64 adds,
    const Topology &t) {
    const i64 q = (i64)blockIdx.y * 256 + threadIdx.x, dense = t.row_starts[0] + blockIdx.x;
    if (q >= b.dense_extent() || dense >= t.row_starts[t.block_rows]) return;
    const i64 row = block_row(t, dense), stride = t.columns(row) * t.block;
    const T *left = values + t.row_offsets[row] * t.block * t.block + (dense - t.row_starts[row]) * stride;
    float sum = 0;
    for (i64 k = 0; k < stride; ++k) {
        const i64 column = t.column_indices[t.row_offsets[row] + k / t.block] * t.block + k % t.block;
        sum += to_float(left[k]) * to_float(*b.at(column, q));
    }
    T *to = c + (is_result_transposed ? q * c_stride + dense : dense * c_stride + q);
    *to = from_float<T>(adds ? to_float(*to) + sum : sum);
}

template <class Y, class T>
inline void dstd(const Stack<Y> &c, const T *values, const Dense<T> &b, i64 adds, const Topology &t) {
    const i64 q = (i64)blockIdx.y * 256 + threadIdx.x, column = blockIdx.x / t.block, n = blockIdx.x - column * t.block;
    if (q >= c.dense_extent()) return;
    float sum = 0;
    for (i64 i = t.column_offsets[column]; i < t.column_offsets[column + 1]; ++i) {
        const i64 p = t.transpose_indices[i], row = t.row_indices[p], stride = t.columns(row) * t.block;
        for (i64 m = 0; m < t.dense_rows(row); ++m) {
            sum += to_float(values[t.value(row, p) + m * stride + n]) * b.at(t.row_starts[row] + m, q);
        }
    }
    Y *to = c.at(blockIdx.x, q);
    *to = from_float<Y>(adds ? to_float(*to) + sum : sum);
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void sdd_any_##suffix(                                                                       \
        T *values, const T *a, i64 a_stride, const i32 *a_rows, i64 a_transposed, const T *b, i64 first, i64 second,   \
        i64 b_transposed, TOPOLOGY_ARGUMENTS) {                                                                        \
        sdd<T>(values, {a, a_stride, a_rows, a_transposed}, {b, first, second, b_transposed}, TOPOLOGY);               \
    }                                                                                                                  \
    extern "C" __global__ void dsd_any_##suffix(                                                                       \
        T *c, i64 c_stride, i64 is_result_transposed, const T *values, const T *b, i64 first, i64 second,              \
        i64 b_transposed, i64 adds, TOPOLOGY_ARGUMENTS) {                                                              \
        dsd<T>(c, c_stride, is_result_transposed, values, {b, first, second, b_transposed}, adds, TOPOLOGY);           \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)

/// Named by the types of the values and of c.
#define DEFINE_DSTD(suffix, T, Y)                                                                                      \
    extern "C" __global__ void dstd_any_##suffix(                                                                      \
        Y *c, i64 first, i64 second, i64 c_transposed, const T *values, const T *b, i64 b_stride, const i32 *b_rows,   \
        i64 b_transposed, i64 adds, TOPOLOGY_ARGUMENTS) {                                                              \
        dstd<Y, T>(                                                                                                    \
            {c, first, second, c_transposed}, values, {b, b_stride, b_rows, b_transposed}, adds, TOPOLOGY);            \
    }
DEFINE_DSTD(f32_f32, float, float)
DEFINE_DSTD(bf16_bf16, bf16, bf16)
DEFINE_DSTD(bf16_f32, bf16, float)
