#ifndef APUS_SIMD_MATH_H
#define APUS_SIMD_MATH_H

// exp, log, logistic, normal distribution and sine over sixteen lanes. Polynomials are own weighted minimax fits.

#include "simd.h"

/// x = exp(x): relative error below 1.5e-7; 0 below -87 (no denormals), infinity above 88.72; NaN stays NaN.
///
/// exp(x) = 2^n exp(r) with n = round(x / ln 2). Adding 1.5 * 2^23 leaves n in the low bits, from where it moves to
/// an exponent.
APUS_INLINE void vector_exp(f32x16 *x) {
    f32x16 v = *x;
    v = v < -87.4f ? (f32x16)-87.4f : v;
    v = v > 89.0f ? (f32x16)89.0f : v;
    f32x16 shifted = v * 1.442695041f + 12582912.0f;
    f32x16 n = shifted - 12582912.0f;
    f32x16 r = v - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    f32x16 p = r * 1.381453942e-03f + 8.368745446e-03f;
    p = p * r + 4.166838899e-02f;
    p = p * r + 1.666652113e-01f;
    p = p * r + 4.999999404e-01f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // 2^(n - 1), then doubled: n = 128 does not overflow before the product does, n = -126 gives 0.
    u32x16 half = ((u32x16)shifted << 23) + (126u << 23);
    p = p * (f32x16)half;
    *x = p + p;
}

/// x = log(x) for positive normal x (relative error below 2e-7); NaN and infinity stay.
APUS_INLINE void vector_log(f32x16 *x) {
    u32x16 bits = (u32x16)*x;
    // The exponent such that the mantissa lies in [sqrt(1/2), sqrt(2)).
    i32x16 e = (i32x16)(bits - 0x3F3504F3u) >> 23;
    f32x16 f = (f32x16)(bits - ((u32x16)e << 23)) - 1.0f;
    f32x16 n = __builtin_convertvector(e, f32x16);
    f32x16 p = f * 8.736038208e-02f - 1.430931240e-01f;
    p = p * f + 1.491834670e-01f;
    p = p * f - 1.657030582e-01f;
    p = p * f + 1.996202171e-01f;
    p = p * f - 2.500176132e-01f;
    p = p * f + 3.333395123e-01f;
    p = p * f - 4.999999106e-01f;
    f32x16 low = n * 1.42860677e-6f + (f * f) * p;
    f32x16 value = n * 0.693145752f + (f + low);
    *x = (*x < __builtin_inff()) ? value : *x;
}

/// x = 1 / (1 + exp(-x)).
APUS_INLINE void vector_sigmoid(f32x16 *x) {
    f32x16 e = -*x;
    vector_exp(&e);
    *x = 1.0f / (1.0f + e);
}

/// probability = the normal distribution function at x, density = exp(-x^2 / 2) (not normalised).
///
/// The lower tail is density * P(t), t = 1 / (1 + 0.35 |x|): its relative error stays near 1e-7 where 1 + erf would
/// cancel.
APUS_INLINE void vector_normal(f32x16 *probability, f32x16 *density, const f32x16 *x) {
    f32x16 v = *x;
    f32x16 magnitude = v < 0.0f ? -v : v;
    f32x16 t = 1.0f / (1.0f + 0.35f * magnitude);
    f32x16 e = -0.5f * (v * v);
    vector_exp(&e);
    f32x16 p = t * -2.914584987e-02f + 1.439713389e-01f;
    p = p * t - 2.557135820e-01f;
    p = p * t + 1.591734588e-01f;
    p = p * t - 2.310940437e-02f;
    p = p * t + 1.055078432e-01f;
    p = p * t + 1.198329031e-01f;
    p = p * t + 1.398618668e-01f;
    p = p * t + 1.396214068e-01f;
    f32x16 tail = e * (p * t);
    *probability = v < 0.0f ? tail : 1.0f - tail;
    *density = e;
}

/// sine and cosine of 2 pi u for u in [0, 1].
APUS_INLINE void vector_sincos_turns(f32x16 *sine, f32x16 *cosine, const f32x16 *u) {
    f32x16 shifted = *u * 4.0f + 12582912.0f;
    u32x16 quadrant = (u32x16)shifted;
    f32x16 r = *u - (shifted - 12582912.0f) * 0.25f;
    f32x16 s = r * r;
    f32x16 p = s * -7.539099121e+01f + 8.159230042e+01f;
    p = p * s - 4.134165955e+01f;
    p = (p * s + 6.283185482f) * r;
    f32x16 q = s * 5.924398041e+01f - 8.544368744e+01f;
    q = q * s + 6.493932343e+01f;
    q = q * s - 1.973920822e+01f;
    q = q * s + 1.0f;
    f32x16 a = (quadrant & 1u) != 0u ? q : p, b = (quadrant & 1u) != 0u ? p : q;
    u32x16 a_sign = (quadrant & 2u) << 30, b_sign = ((quadrant + 1u) & 2u) << 30;
    *sine = (f32x16)((u32x16)a ^ a_sign);
    *cosine = (f32x16)((u32x16)b ^ b_sign);
}

/// One exp, the same bits as a lane of `vector_exp`.
APUS_INLINE float scalar_exp(float x) {
    f32x16 v = (f32x16)x;
    vector_exp(&v);
    return v[0];
}

/// One log, the same bits as a lane of `vector_log`.
APUS_INLINE float scalar_log(float x) {
    f32x16 v = (f32x16)x;
    vector_log(&v);
    return v[0];
}

#endif
