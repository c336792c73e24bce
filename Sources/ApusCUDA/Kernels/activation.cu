// GELU, GELU by tanh, ReLU and their gradients. See Ops/Activation.swift. SwiGLU has swiglu.cu.
//
// Launch: "flat". The floor is the bytes: x and y once each; da, h, dh (and the recomputed a) once each backward.

#include "types.cuh"

inline float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

/// x * Phi(x), exact. erfc keeps the relative precision of the lower tail, where 1 + erf would cancel.
struct Gelu {
    static float probability(float x) { return 0.5f * erfcf(-0.70710678f * x); }
    static float value(float x) { return x * probability(x); }
    static float slope(float x) { return probability(x) + x * 0.3989422804f * expf(-0.5f * x * x); }
};

/// x * logistic(2 sqrt(2 / pi) (x + 0.044715 x^3)), which is the tanh form. Beyond 16 the cube could overflow, and the
/// logistic has long been 0 or 1.
struct GeluTanh {
    static float value(float x) {
        const float v = fminf(fmaxf(x, -16.0f), 16.0f);
        return x * logistic(1.595769122f * v * (1.0f + 0.044715f * v * v));
    }
    static float slope(float x) {
        const float v = fminf(fmaxf(x, -16.0f), 16.0f), square = v * v;
        const float s = logistic(1.595769122f * v * (1.0f + 0.044715f * square));
        return s + x * s * ((1.0f - s) * (1.595769122f * (1.0f + 0.134145f * square)));
    }
};

struct Relu {
    static float value(float x) { return x < 0.0f ? 0.0f : x; }
    static float slope(float x) { return x > 0.0f ? 1.0f : 0.0f; }
};

template <class Function, class T> inline void forward(T *y, const T *x, i64 n) {
    const bool vector = is_aligned(y) && is_aligned(x);
    each_group(n, [&](i64 i, i64 left) {
        Lanes u;
        load(u, x + i, left, vector);
        each(u, [&](int l) { return Function::value(u.x[l]); });
        store(y + i, u, left, vector);
    });
}

/// dh may be h, and the recomputed a (or null) may be da: both are read before either is written.
template <class Function, class T> inline void backward(T *dh, T *a, const T *da, const T *h, i64 n) {
    const bool vector = is_aligned(dh) && is_aligned(a) && is_aligned(da) && is_aligned(h);
    each_group(n, [&](i64 i, i64 left) {
        Lanes u, d;
        load(u, h + i, left, vector);
        load(d, da + i, left, vector);
        // A product with 0 would turn an infinite gradient into NaN where ReLU is shut.
        each(d, [&](int l) {
            const float slope = Function::slope(u.x[l]);
            return slope == 0.0f ? 0.0f : d.x[l] * slope;
        });
        store(dh + i, d, left, vector);
        if (!a) return;
        each(u, [&](int l) { return Function::value(u.x[l]); });
        store(a + i, u, left, vector);
    });
}

#define DEFINE(name, Function, suffix, T)                                                                              \
    extern "C" __global__ void name##_##suffix(T *y, const T *x, i64 n) { forward<Function>(y, x, n); }                \
    extern "C" __global__ void name##_backward_##suffix(T *dh, T *a, const T *da, const T *h, i64 n) {                 \
        backward<Function>(dh, a, da, h, n);                                                                           \
    }
DEFINE(gelu, Gelu, f32, float)
DEFINE(gelu, Gelu, bf16, bf16)
DEFINE(gelu_tanh, GeluTanh, f32, float)
DEFINE(gelu_tanh, GeluTanh, bf16, bf16)
DEFINE(relu, Relu, f32, float)
DEFINE(relu, Relu, bf16, bf16)
