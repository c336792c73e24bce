#pragma once
// Sums and maxima over a warp or over the threads of a row, always in the same order.
//
// Rows: threadIdx.x runs along a row and blockDim.x is a multiple of 32; threadIdx.y numbers the rows of a block. The
// order of a row's sum follows from blockDim.x alone, which the launcher derives from the row's width.

#include "types.cuh"

constexpr u32 all_lanes = 0xFFFFFFFFu;

template <class T> inline T warp_sum(T x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(all_lanes, x, offset);
    return x;
}

inline float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(all_lanes, x, offset));
    return x;
}

/// Adds `x` over the threads of a row; every thread gets the sum, and every thread of the block must call.
template <class T> inline T row_sum(T x) {
    x = warp_sum(x);
    if (blockDim.x == 32) return x;
    __shared__ T partial[32];
    const int warps = blockDim.x / 32, base = threadIdx.y * warps;
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[base + threadIdx.x / 32] = x;
    __syncthreads();
    T sum = partial[base];
    for (int w = 1; w < warps; ++w) sum += partial[base + w];
    return sum;
}

/// The largest `x` over the threads of a row; as `row_sum`.
inline float row_max(float x) {
    x = warp_max(x);
    if (blockDim.x == 32) return x;
    __shared__ float partial[32];
    const int warps = blockDim.x / 32, base = threadIdx.y * warps;
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[base + threadIdx.x / 32] = x;
    __syncthreads();
    float top = partial[base];
    for (int w = 1; w < warps; ++w) top = fmaxf(top, partial[base + w]);
    return top;
}

/// The row of this thread, for a grid of blocks of blockDim.y rows each.
inline i64 row_index() { return (i64)blockIdx.x * blockDim.y + threadIdx.y; }

/// Calls `body(first, left)` for the groups of eight among the `width` elements of a row that are this thread's.
template <class Body> inline void each_row_group(i64 width, Body body) {
    for (i64 i = (i64)threadIdx.x * lanes; i < width; i += (i64)blockDim.x * lanes) body(i, width - i);
}

/// Elements of a partial sum of a whole tensor: enough that partials are few, few enough that every multiprocessor has
/// several.
constexpr i64 block_elements = 64 * 1024;

/// The sum of term(x) over the `extent` elements from `begin` on, by all threads of a block.
///
/// Eight terms are added in f32 before they join a sum in f64, which costs an eighth of the conversions.
template <class T, class Term> inline double block_sum(const T *x, i64 begin, i64 extent, Term term) {
    const bool vector = is_aligned(x);
    double sum = 0;
    each_row_group(extent, [&](i64 i, i64 left) {
        Lanes u;
        load(u, x + begin + i, left, vector);
        float group = 0;
#pragma unroll
        for (int l = 0; l < lanes; ++l) group += term(u.x[l]);
        sum += group;
    });
    return row_sum(sum);
}
