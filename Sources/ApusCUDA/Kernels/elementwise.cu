// Element-wise passes over dense tensors, and copies and bias over rows. See Ops/Elementwise.swift.
//
// Launch: "flat" for n elements, "rows" for rows x width (README.md). Each element is read and written once, so the
// floor is the bytes over the memory's bandwidth; a thread moves 16 or 32 bytes of each operand at a time. Operands may
// be the target.

#include "reduce.cuh"

template <class T> inline void fill(T *y, float value, i64 n) {
    const bool vector = is_aligned(y);
    Lanes v;
    each(v, [&](int) { return value; });
    each_group(n, [&](i64 i, i64 left) { store(y + i, v, left, vector); });
}

/// y = body(element of a, element of b); b may be null where the body ignores it.
template <class Y, class A, class B, class Body> inline void combine(Y *y, const A *a, const B *b, i64 n, Body body) {
    const bool vector = is_aligned(y) && is_aligned(a) && is_aligned(b);
    each_group(n, [&](i64 i, i64 left) {
        Lanes u, v = {};
        load(u, a + i, left, vector);
        if (b) load(v, b + i, left, vector);
        each(u, [&](int l) { return body(u.x[l], v.x[l]); });
        store(y + i, u, left, vector);
    });
}

template <class T>
inline void add_bias(T *y, i64 y_stride, const T *x, i64 x_stride, const T *bias, i64 rows, i64 width) {
    const i64 row = row_index();
    if (row >= rows) return;
    const bool vector = is_aligned(y, y_stride) && is_aligned(x, x_stride) && is_aligned(bias);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes u, v;
        load(u, x + row * x_stride + i, left, vector);
        load(v, bias + i, left, vector);
        each(u, [&](int l) { return u.x[l] + v.x[l]; });
        store(y + row * y_stride + i, u, left, vector);
    });
}

/// Rows of `bytes` bytes, `y_stride` and `x_stride` bytes apart. Launch "rows" with width `bytes` / 2.
extern "C" __global__ void copy_rows(u8 *y, i64 y_stride, const u8 *x, i64 x_stride, i64 rows, i64 bytes) {
    const i64 row = row_index();
    if (row >= rows) return;
    const bool vector = is_aligned(y, y_stride) && is_aligned(x, x_stride);
    const u8 *from = x + row * x_stride;
    u8 *to = y + row * y_stride;
    const i64 whole = vector ? bytes / 16 : 0;
    for (i64 i = threadIdx.x; i < whole; i += blockDim.x) ((uint4 *)to)[i] = ((const uint4 *)from)[i];
    for (i64 i = whole * 16 + threadIdx.x; i < bytes; i += blockDim.x) to[i] = from[i];
}

/// Runs of four-byte words, from anywhere.
constexpr int most_packed = 64;
struct WordRuns {
    const u32 *from[most_packed];
    i64 begin[most_packed + 1];
};

/// Packs runs of words one after the other, the i-th into y[begin[i]] ..< y[begin[i + 1]]. Launch: a block for each, 256
/// threads.
extern "C" __global__ void pack_words(u32 *y, const __grid_constant__ WordRuns runs) {
    const u32 *from = runs.from[blockIdx.x];
    const i64 begin = runs.begin[blockIdx.x], count = runs.begin[blockIdx.x + 1] - begin;
    for (i64 i = threadIdx.x; i < count; i += blockDim.x) y[begin + i] = from[i];
}

extern "C" __global__ void fill_i32(i32 *y, i64 value, i64 n) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) y[i] = (i32)value;
}
extern "C" __global__ void fill_u8(u8 *y, i64 value, i64 n) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) y[i] = (u8)value;
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void fill_##suffix(T *y, float value, i64 n) { fill(y, value, n); }                          \
    extern "C" __global__ void add_##suffix(T *y, const T *a, const T *b, i64 n) {                                     \
        combine(y, a, b, n, [](float u, float v) { return u + v; });                                                   \
    }                                                                                                                  \
    extern "C" __global__ void multiply_##suffix(T *y, const T *a, const T *b, i64 n) {                                \
        combine(y, a, b, n, [](float u, float v) { return u * v; });                                                   \
    }                                                                                                                  \
    extern "C" __global__ void scale_##suffix(T *y, const T *x, float factor, i64 n) {                                 \
        combine(y, x, (const T *)nullptr, n, [=](float u, float) { return u * factor; });                              \
    }                                                                                                                  \
    extern "C" __global__ void add_bias_##suffix(                                                                      \
        T *y, i64 y_stride, const T *x, i64 x_stride, const T *bias, i64 rows, i64 width) {                            \
        add_bias(y, y_stride, x, x_stride, bias, rows, width);                                                         \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)

/// y += factor * x, formed in f32 and rounded once; named by the types of x and y.
#define DEFINE_ADD_SCALED(suffix, X, Y)                                                                                \
    extern "C" __global__ void add_scaled_##suffix(Y *y, const X *x, float factor, i64 n) {                            \
        combine(y, x, y, n, [=](float u, float v) { return v + factor * u; });                                         \
    }
DEFINE_ADD_SCALED(f32, float, float)
DEFINE_ADD_SCALED(bf16, bf16, bf16)
DEFINE_ADD_SCALED(bf16_f32, bf16, float)
DEFINE_ADD_SCALED(f32_bf16, float, bf16)

extern "C" __global__ void convert_f32_bf16(bf16 *y, const float *x, i64 n) {
    combine(y, x, (const float *)nullptr, n, [](float u, float) { return u; });
}
extern "C" __global__ void convert_bf16_f32(float *y, const bf16 *x, i64 n) {
    combine(y, x, (const bf16 *)nullptr, n, [](float u, float) { return u; });
}
