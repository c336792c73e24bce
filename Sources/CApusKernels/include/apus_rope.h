#ifndef APUS_ROPE_H
#define APUS_ROPE_H

// Rotary position embedding (Su et al., "RoFormer", section 3.2): element i of what is turned, r wide, is paired with
// element i + r / 2, the rotate-half layout of most Hugging Face models, or, as in the paper, elements 2 i and 2 i + 1 are
// a pair.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// Fills cosines and sines (positions, head_width / 2) with the angles p * theta^(-2 i / head_width), computed in
/// double.
void apus_rope_table(float *cosines, float *sines, ptrdiff_t positions, ptrdiff_t head_width, double theta);

/// y = x rotated by the angles of each row's position; x and y are (rows, heads, width) with strides from one token and
/// from one head to the next. A head stride of 0 in x turns the same elements for every head of y.
///
/// - `positions` (rows) index the table (max_positions, width / 2); the caller checks that they are inside it.
/// - `neighbours` pairs elements 2 i and 2 i + 1 instead of i and i + width / 2.
/// - `inverse` rotates by the negated angle, which is the gradient.
/// - width is even. y may be the same memory as x with the same strides.
void apus_rope_f32(
    float *y, ptrdiff_t y_stride, ptrdiff_t y_head_stride, const float *x, ptrdiff_t x_stride, ptrdiff_t x_head_stride,
    const float *cosines, const float *sines, const int32_t *positions, ptrdiff_t rows, ptrdiff_t heads,
    ptrdiff_t width, bool neighbours, bool inverse);
void apus_rope_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, ptrdiff_t y_head_stride, const apus_bf16 *x, ptrdiff_t x_stride, ptrdiff_t x_head_stride,
    const float *cosines, const float *sines, const int32_t *positions, ptrdiff_t rows, ptrdiff_t heads,
    ptrdiff_t width, bool neighbours, bool inverse);

#endif
