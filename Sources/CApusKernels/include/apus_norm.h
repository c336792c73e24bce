#ifndef APUS_NORM_H
#define APUS_NORM_H

// RMSNorm and LayerNorm over rows of `width` elements.
//
// A row is addressed by (token, head): element i of row (t, h) of x is x[t * x_token_stride + h * x_head_stride + i].
// A plain matrix (T, D) has heads = 1 and any head stride; query-key norm on heads of a packed projection has heads =
// H, head stride dh. Statistics are f32, one a row, contiguous in (token, head) order. Parameter gradients are f32
// and accumulated (+=) in row order: give each thread its own zeroed buffer and add the buffers in thread order.

#include <stdbool.h>
#include <stddef.h>

#include "apus_types.h"

/// y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps), over tokens x heads rows.
///
/// - `rstd` (tokens * heads) may be null when no backward follows; `weight` (width) may be null for ones.
/// - y may be the same memory as x with the same strides (the backward then needs a copy of x).
void apus_rmsnorm_forward_f32(
    float *y, ptrdiff_t y_token_stride, ptrdiff_t y_head_stride, float *rstd,
    const float *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const float *weight,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, float eps);
void apus_rmsnorm_forward_bf16(
    apus_bf16 *y, ptrdiff_t y_token_stride, ptrdiff_t y_head_stride, float *rstd,
    const apus_bf16 *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const apus_bf16 *weight,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, float eps);

/// sum = x + residual (stored, rounded to the element type), then y = rmsnorm(sum), over rows of a matrix (T, D).
///
/// `sum` may be the same memory as x or residual with the same stride. `rstd` may be null.
void apus_add_rmsnorm_forward_f32(
    float *y, ptrdiff_t y_stride, float *sum, ptrdiff_t sum_stride, float *rstd,
    const float *x, ptrdiff_t x_stride, const float *residual, ptrdiff_t residual_stride, const float *weight,
    ptrdiff_t rows, ptrdiff_t width, float eps);
void apus_add_rmsnorm_forward_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, apus_bf16 *sum, ptrdiff_t sum_stride, float *rstd,
    const apus_bf16 *x, ptrdiff_t x_stride, const apus_bf16 *residual, ptrdiff_t residual_stride,
    const apus_bf16 *weight, ptrdiff_t rows, ptrdiff_t width, float eps);

/// The gradient of RMSNorm: dx (= or, with `accumulate`, +=) from dy, the input x and the stored rstd; dweight
/// (width, f32) +=.
///
/// `weight` and `dweight` may be null. dx may be the same memory as dy or x with the same strides.
void apus_rmsnorm_backward_f32(
    float *dx, ptrdiff_t dx_token_stride, ptrdiff_t dx_head_stride, float *dweight,
    const float *dy, ptrdiff_t dy_token_stride, ptrdiff_t dy_head_stride,
    const float *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const float *weight, const float *rstd,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, bool accumulate);
void apus_rmsnorm_backward_bf16(
    apus_bf16 *dx, ptrdiff_t dx_token_stride, ptrdiff_t dx_head_stride, float *dweight,
    const apus_bf16 *dy, ptrdiff_t dy_token_stride, ptrdiff_t dy_head_stride,
    const apus_bf16 *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const apus_bf16 *weight, const float *rstd,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, bool accumulate);

/// y = (x - mean) * rstd * weight + bias with rstd = 1 / sqrt(var(x) + eps), var the population variance.
///
/// `mean` and `rstd` (tokens * heads) may be null when no backward follows; `weight` and `bias` (width) may be null.
/// y may be the same memory as x with the same strides.
void apus_layernorm_forward_f32(
    float *y, ptrdiff_t y_token_stride, ptrdiff_t y_head_stride, float *mean, float *rstd,
    const float *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const float *weight, const float *bias,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, float eps);
void apus_layernorm_forward_bf16(
    apus_bf16 *y, ptrdiff_t y_token_stride, ptrdiff_t y_head_stride, float *mean, float *rstd,
    const apus_bf16 *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const apus_bf16 *weight,
    const apus_bf16 *bias, ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, float eps);

/// The gradient of LayerNorm: dx (= or, with `accumulate`, +=); dweight and dbias (width, f32) +=.
///
/// `weight`, `dweight` and `dbias` may be null. dx may be the same memory as dy or x with the same strides.
void apus_layernorm_backward_f32(
    float *dx, ptrdiff_t dx_token_stride, ptrdiff_t dx_head_stride, float *dweight, float *dbias,
    const float *dy, ptrdiff_t dy_token_stride, ptrdiff_t dy_head_stride,
    const float *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const float *weight,
    const float *mean, const float *rstd, ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, bool accumulate);
void apus_layernorm_backward_bf16(
    apus_bf16 *dx, ptrdiff_t dx_token_stride, ptrdiff_t dx_head_stride, float *dweight, float *dbias,
    const apus_bf16 *dy, ptrdiff_t dy_token_stride, ptrdiff_t dy_head_stride,
    const apus_bf16 *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const apus_bf16 *weight,
    const float *mean, const float *rstd, ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, bool accumulate);

#endif
