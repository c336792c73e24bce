#ifndef APUS_MIX_H
#define APUS_MIX_H

// Two branches of a network mixed row by row with weights of their own: PR-MoE's residual expert. T rows, D width.

#include <stddef.h>

#include "apus_types.h"

/// y[t, :] = weight[t, 0] * a[t, :] + weight[t, 1] * b[t, :] for `rows` rows; weight is (T, 2), dense. y may be a or b.
void apus_mix_rows_f32(
    float *y, ptrdiff_t y_stride, const float *a, ptrdiff_t a_stride, const float *b, ptrdiff_t b_stride,
    const float *weight, ptrdiff_t rows, ptrdiff_t width);
void apus_mix_rows_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, const apus_bf16 *a, ptrdiff_t a_stride, const apus_bf16 *b, ptrdiff_t b_stride,
    const float *weight, ptrdiff_t rows, ptrdiff_t width);

/// One branch of the gradient: dx[t, :] = weight[t, branch] * dy[t, :] and dweight[t, branch] = dot(x[t, :], dy[t, :])
/// for the branch x, whose index is 0 or 1. dx must not overlap x.
void apus_mix_rows_backward_f32(
    float *dx, ptrdiff_t dx_stride, float *dweight, const float *dy, ptrdiff_t dy_stride, const float *x,
    ptrdiff_t x_stride, const float *weight, ptrdiff_t branch, ptrdiff_t rows, ptrdiff_t width);
void apus_mix_rows_backward_bf16(
    apus_bf16 *dx, ptrdiff_t dx_stride, float *dweight, const apus_bf16 *dy, ptrdiff_t dy_stride, const apus_bf16 *x,
    ptrdiff_t x_stride, const float *weight, ptrdiff_t branch, ptrdiff_t rows, ptrdiff_t width);

#endif
