#ifndef APUS_ACTIVATION_H
#define APUS_ACTIVATION_H

// Activations, forward and backward. F is the width of the activated rows.

#include <stddef.h>

#include "apus_types.h"

/// SwiGLU: a[r, f] = w[r] * silu(gate) * up with h (rows, 2F) = [gate | up].
///
/// - `row_weight` (rows, f32) is the routing weight w of each row, or null for one.
/// - h_stride is the distance between rows of h (>= 2F), a_stride of a (>= F). a may be the first half of h (same row
///   starts).
void apus_swiglu_forward_f32(
    float *a, ptrdiff_t a_stride, const float *h, ptrdiff_t h_stride, const float *row_weight, ptrdiff_t rows,
    ptrdiff_t width);
void apus_swiglu_forward_bf16(
    apus_bf16 *a, ptrdiff_t a_stride, const apus_bf16 *h, ptrdiff_t h_stride, const float *row_weight, ptrdiff_t rows,
    ptrdiff_t width);

/// The gradient of SwiGLU: dh (rows, 2F) from da (rows, F) and the stored h (rows, 2F).
///
/// - `a`, unless null, receives the forward's output again, row weight included: memory is saved by not keeping it.
/// - `row_dot` (rows, f32), unless null, receives sum_f da * silu(gate) * up, the gradient of the row weight (also
///   where w is 0).
/// - dh may be the same memory as h; a may be the same memory as da; same strides then.
void apus_swiglu_backward_f32(
    float *dh, ptrdiff_t dh_stride, float *a, ptrdiff_t a_stride, float *row_dot, const float *da, ptrdiff_t da_stride,
    const float *h, ptrdiff_t h_stride, const float *row_weight, ptrdiff_t rows, ptrdiff_t width);
void apus_swiglu_backward_bf16(
    apus_bf16 *dh, ptrdiff_t dh_stride, apus_bf16 *a, ptrdiff_t a_stride, float *row_dot, const apus_bf16 *da,
    ptrdiff_t da_stride, const apus_bf16 *h, ptrdiff_t h_stride, const float *row_weight, ptrdiff_t rows,
    ptrdiff_t width);

/// y = x * Phi(x), Phi the normal distribution function (the exact, erf form of GELU). n elements; y may be x.
void apus_gelu_forward_f32(float *y, const float *x, ptrdiff_t n);
void apus_gelu_forward_bf16(apus_bf16 *y, const apus_bf16 *x, ptrdiff_t n);

/// dx = dy * gelu'(x). dx may be dy or x.
void apus_gelu_backward_f32(float *dx, const float *dy, const float *x, ptrdiff_t n);
void apus_gelu_backward_bf16(apus_bf16 *dx, const apus_bf16 *dy, const apus_bf16 *x, ptrdiff_t n);

/// y = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the tanh form of GELU. n elements; y may be x.
void apus_gelu_tanh_forward_f32(float *y, const float *x, ptrdiff_t n);
void apus_gelu_tanh_forward_bf16(apus_bf16 *y, const apus_bf16 *x, ptrdiff_t n);

/// dx = dy * the derivative of the tanh form of GELU at x. dx may be dy or x.
void apus_gelu_tanh_backward_f32(float *dx, const float *dy, const float *x, ptrdiff_t n);
void apus_gelu_tanh_backward_bf16(apus_bf16 *dx, const apus_bf16 *dy, const apus_bf16 *x, ptrdiff_t n);

/// y = max(x, 0); NaN stays NaN. n elements; y may be x.
void apus_relu_forward_f32(float *y, const float *x, ptrdiff_t n);
void apus_relu_forward_bf16(apus_bf16 *y, const apus_bf16 *x, ptrdiff_t n);

/// dx = dy where x > 0, else 0. dx may be dy or x. The forward's output serves as x too.
void apus_relu_backward_f32(float *dx, const float *dy, const float *x, ptrdiff_t n);
void apus_relu_backward_bf16(apus_bf16 *dx, const apus_bf16 *dy, const apus_bf16 *x, ptrdiff_t n);

#endif
