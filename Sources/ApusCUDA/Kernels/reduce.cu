// Sums over whole tensors and over columns, in a fixed order whatever the device. See Ops/Elementwise.swift.
//
// Two stages: one partial for each fixed block of elements or rows, and then the partials in order. The floor is
// reading the tensor once; partials are a ten-thousandth of it.

#include "reduce.cuh"

/// partials[b] = the sum of the b-th 65,536 elements. Launch: n / 65,536 blocks rounded up, 256 threads.
extern "C" __global__ void sum_f32(double *partials, const float *x, i64 n) {
    const i64 begin = blockIdx.x * block_elements;
    const double sum = block_sum(x, begin, min(n - begin, block_elements), [](float u) { return u; });
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/// result[0] = factor * the sum of `count` partials. Launch: one block of 256 threads.
extern "C" __global__ void finish_sum(float *result, const double *partials, i64 count, float factor) {
    double sum = 0;
    for (i64 i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = row_sum(sum);
    if (threadIdx.x == 0) result[0] = (float)((double)factor * sum);
}

/// partials[c, j] = the sum of column j over the c-th 128 rows, in row order. Launch: (width / 256, rows / 128) blocks
/// rounded up, 256 threads. `add_partials` finishes.
template <class T> inline void column_sums(float *partials, const T *x, i64 x_stride, i64 rows, i64 width) {
    const i64 column = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const i64 begin = blockIdx.y * 128LL, end = min(rows, begin + 128);
    float sum = 0;
#pragma unroll 8
    for (i64 row = begin; row < end; ++row) sum += to_float(x[row * x_stride + column]);
    partials[blockIdx.y * width + column] = sum;
}

/// y[j] += the sum over `count` rows of partials (count, width), rounded once. Launch: width / 32 blocks rounded up of
/// (32, 32) threads: 32 runs of partials are added side by side, then the runs in order.
template <class T> inline void add_partials(T *y, const float *partials, i64 count, i64 width) {
    __shared__ float runs[32][33];
    const i64 column = blockIdx.x * 32LL + threadIdx.x, run = (count + 31) / 32;
    const i64 begin = threadIdx.y * run, end = min(count, begin + run);
    float sum = 0;
    if (column < width) {
#pragma unroll 4
        for (i64 i = begin; i < end; ++i) sum += partials[i * width + column];
    }
    runs[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || column >= width) return;
    sum = to_float(y[column]);
    for (int i = 0; i < 32; ++i) sum += runs[i][threadIdx.x];
    y[column] = from_float<T>(sum);
}

/// count[0] += the elements that are not finite; integers, so the order does not matter. Launch "flat".
template <class T> inline void count_nonfinite(i32 *count, const T *x, i64 n) {
    const bool vector = is_aligned(x);
    i32 found = 0;
    each_group(n, [&](i64 i, i64 left) {
        Lanes u;
        load(u, x + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) found += (__float_as_uint(u.x[l]) & 0x7F800000u) == 0x7F800000u;
    });
    found = __reduce_add_sync(all_lanes, found);
    if (threadIdx.x % 32 == 0 && found > 0) atomicAdd(count, found);
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void column_sums_##suffix(float *partials, const T *x, i64 x_stride, i64 rows, i64 width) {  \
        column_sums(partials, x, x_stride, rows, width);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void add_partials_##suffix(T *y, const float *partials, i64 count, i64 width) {              \
        add_partials(y, partials, count, width);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void count_nonfinite_##suffix(i32 *count, const T *x, i64 n) { count_nonfinite(count, x, n); }
DEFINE(f32, float)
DEFINE(bf16, bf16)
