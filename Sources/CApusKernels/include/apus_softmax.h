#ifndef APUS_SOFTMAX_H
#define APUS_SOFTMAX_H

// Softmax, log-sum-exp and sigmoid.

#include <stddef.h>

#include "apus_types.h"

/// y (rows, width) = softmax(scale * x) along each row. y may be the same memory as x with the same stride.
///
/// A row of nothing but minus infinity gives zeros. A NaN or plus infinity in a row makes that row NaN.
void apus_softmax_forward_f32(
    float *y, ptrdiff_t y_stride, const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width, float scale);

/// dx = scale * y * (dy - sum(y * dy)) along each row, from the forward's output y. dx may be the same memory as dy
/// or y.
void apus_softmax_backward_f32(
    float *dx, ptrdiff_t dx_stride, const float *dy, ptrdiff_t dy_stride, const float *y, ptrdiff_t y_stride,
    ptrdiff_t rows, ptrdiff_t width, float scale);

/// lse (rows, f32) = log(sum(exp(x))) along each row of x (rows, width); minus infinity for an empty or
/// all-minus-infinity row.
void apus_logsumexp_f32(float *lse, const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width);

/// y = 1 / (1 + exp(-x)), n elements. y may be x.
void apus_sigmoid_forward_f32(float *y, const float *x, ptrdiff_t n);

/// dx = dy * y * (1 - y), from the forward's output y. dx may be dy or y.
void apus_sigmoid_backward_f32(float *dx, const float *dy, const float *y, ptrdiff_t n);

#endif
