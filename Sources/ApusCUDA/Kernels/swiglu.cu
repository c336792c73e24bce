// SwiGLU, a = silu(gate) * up with h (R, 2F) = [gate | up], and its gradient. See Ops/Activation.swift; Shazeer 2020.
//
// Launch: "rows" for R rows of F. The floor is the bytes: h and a once each forward (3 F elements a row), da, h and dh
// (and the recomputed a) once each backward (5 or 6 F). `h_stride` and `a_stride` are elements between rows.

#include "reduce.cuh"

inline float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T> inline void swiglu(T *a, i64 a_stride, const T *h, i64 h_stride, i64 rows, i64 width) {
    const i64 row = row_index();
    if (row >= rows) return;
    const T *gate = h + row * h_stride, *up = gate + width;
    T *out = a + row * a_stride;
    const bool vector = is_aligned(gate) && is_aligned(up) && is_aligned(out);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes g, u;
        load(g, gate + i, left, vector);
        load(u, up + i, left, vector);
        each(u, [&](int l) { return g.x[l] * logistic(g.x[l]) * u.x[l]; });
        store(out + i, u, left, vector);
    });
}

/// silu'(g) = s (1 + g (1 - s)) with s the logistic function of g. dh may be h, and the recomputed a (or null) may be
/// da.
template <class T>
inline void swiglu_backward(
    T *dh, i64 dh_stride, T *a, i64 a_stride, const T *da, i64 da_stride, const T *h, i64 h_stride, i64 rows,
    i64 width) {
    const i64 row = row_index();
    if (row >= rows) return;
    const T *gate = h + row * h_stride, *up = gate + width, *gradient = da + row * da_stride;
    T *dgate = dh + row * dh_stride, *dup = dgate + width, *again = a ? a + row * a_stride : nullptr;
    const bool vector = is_aligned(gate) && is_aligned(up) && is_aligned(gradient) && is_aligned(dgate)
        && is_aligned(dup) && is_aligned(again);
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes g, u, d, activated;
        load(g, gate + i, left, vector);
        load(u, up + i, left, vector);
        load(d, gradient + i, left, vector);
#pragma unroll
        for (int l = 0; l < lanes; ++l) {
            const float s = logistic(g.x[l]), silu = g.x[l] * s, slope = s + silu * (1.0f - s);
            activated.x[l] = silu * u.x[l];
            g.x[l] = d.x[l] * u.x[l] * slope;
            u.x[l] = d.x[l] * silu;
        }
        store(dgate + i, g, left, vector);
        store(dup + i, u, left, vector);
        if (again) store(again + i, activated, left, vector);
    });
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void swiglu_##suffix(                                                                        \
        T *a, i64 a_stride, const T *h, i64 h_stride, i64 rows, i64 width) {                                           \
        swiglu(a, a_stride, h, h_stride, rows, width);                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void swiglu_backward_##suffix(                                                               \
        T *dh, i64 dh_stride, T *a, i64 a_stride, const T *da, i64 da_stride, const T *h, i64 h_stride, i64 rows,      \
        i64 width) {                                                                                                   \
        swiglu_backward(dh, dh_stride, a, a_stride, da, da_stride, h, h_stride, rows, width);                          \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
