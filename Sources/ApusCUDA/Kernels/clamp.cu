// Holding values within -limit ... limit, and the gradient. See Ops/Clamp.swift.
//
// Launch: "flat". The floor is the bytes: each operand once. Comparisons keep a NaN: it is neither below nor above.

#include "types.cuh"

/// Towards zero for bf16, so that the stored bound stays inside the interval; other values are exact.
inline float inside(float, float x) { return x; }
inline float inside(bf16, float x) { return __uint_as_float(__float_as_uint(x) & 0xFFFF0000u); }

template <class T> inline void clamp(T *y, const T *x, float limit, i64 n) {
    const bool vector = is_aligned(y) && is_aligned(x);
    each_group(n, [&](i64 i, i64 left) {
        Lanes u;
        load(u, x + i, left, vector);
        each(u, [&](int l) { return inside(T(), u.x[l] < -limit ? -limit : u.x[l] > limit ? limit : u.x[l]); });
        store(y + i, u, left, vector);
    });
}

template <class T> inline void clamp_backward(T *dx, const T *dy, const T *x, float limit, i64 n) {
    const bool vector = is_aligned(dx) && is_aligned(dy) && is_aligned(x);
    each_group(n, [&](i64 i, i64 left) {
        Lanes d, u;
        load(d, dy + i, left, vector);
        load(u, x + i, left, vector);
        each(d, [&](int l) { return u.x[l] >= -limit && u.x[l] <= limit ? d.x[l] : 0.0f; });
        store(dx + i, d, left, vector);
    });
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void clamp_##suffix(T *y, const T *x, float limit, i64 n) { clamp(y, x, limit, n); }         \
    extern "C" __global__ void clamp_backward_##suffix(T *dx, const T *dy, const T *x, float limit, i64 n) {           \
        clamp_backward(dx, dy, x, limit, n);                                                                           \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
