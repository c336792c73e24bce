#ifndef APUS_ELEMENTWISE_H
#define APUS_ELEMENTWISE_H

// Element-wise kernels and whole-range reductions on contiguous elements, plus bias over rows.
//
// n elements, or (rows, width) with a row stride in elements. Outputs may be the same pointer as an input, never a
// shifted overlap. bf16 is computed in f32 and rounded to nearest even when stored; NaN stays NaN.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// y = value.
void apus_fill_f32(float *y, ptrdiff_t n, float value);
void apus_fill_bf16(apus_bf16 *y, ptrdiff_t n, float value);

/// y = a + b.
void apus_add_f32(float *y, const float *a, const float *b, ptrdiff_t n);
void apus_add_bf16(apus_bf16 *y, const apus_bf16 *a, const apus_bf16 *b, ptrdiff_t n);

/// y = a * b.
void apus_multiply_f32(float *y, const float *a, const float *b, ptrdiff_t n);
void apus_multiply_bf16(apus_bf16 *y, const apus_bf16 *a, const apus_bf16 *b, ptrdiff_t n);

/// y += a * x.
void apus_add_scaled_f32(float *y, float a, const float *x, ptrdiff_t n);
void apus_add_scaled_bf16(apus_bf16 *y, float a, const apus_bf16 *x, ptrdiff_t n);

/// y (f32) += a * x (bf16): a bf16 contribution enters an f32 gradient buffer.
void apus_add_scaled_bf16_to_f32(float *y, float a, const apus_bf16 *x, ptrdiff_t n);

/// y = a * x.
void apus_scale_f32(float *y, const float *x, float a, ptrdiff_t n);
void apus_scale_bf16(apus_bf16 *y, const apus_bf16 *x, float a, ptrdiff_t n);

/// y = x, rounded to bf16 (nearest even).
void apus_convert_f32_to_bf16(apus_bf16 *y, const float *x, ptrdiff_t n);

/// y = x, widened exactly.
void apus_convert_bf16_to_f32(float *y, const apus_bf16 *x, ptrdiff_t n);

/// y (rows, width) = x (rows, width) + bias (width) on every row.
void apus_add_bias_f32(
    float *y, ptrdiff_t y_stride, const float *x, ptrdiff_t x_stride, const float *bias, ptrdiff_t rows,
    ptrdiff_t width);
void apus_add_bias_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, const apus_bf16 *x, ptrdiff_t x_stride, const apus_bf16 *bias, ptrdiff_t rows,
    ptrdiff_t width);

/// sums (width, f32) += the sum of x (rows, width) over its rows, in row order: the gradient of a bias. Split over
/// threads by columns (offset `sums` and `x`) to keep the order, and so the bits, the same for any thread count.
void apus_column_sums_f32(float *sums, const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width);
void apus_column_sums_bf16(float *sums, const apus_bf16 *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width);

/// The sum of x, accumulated in double in a fixed order that depends on n alone.
double apus_sum_f32(const float *x, ptrdiff_t n);

/// The sum of x * x, accumulated in double in a fixed order that depends on n alone.
double apus_sum_squares_f32(const float *x, ptrdiff_t n);
double apus_sum_squares_bf16(const apus_bf16 *x, ptrdiff_t n);

/// The number of elements that are NaN or infinite. `first`, unless null, receives the index of the first one, or -1.
ptrdiff_t apus_count_nonfinite_f32(const float *x, ptrdiff_t n, ptrdiff_t *first);
ptrdiff_t apus_count_nonfinite_bf16(const apus_bf16 *x, ptrdiff_t n, ptrdiff_t *first);

#endif
