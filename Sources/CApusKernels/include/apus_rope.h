#ifndef APUS_ROPE_H
#define APUS_ROPE_H

// Rotary position embedding (Su et al., "RoFormer", section 3.2), in the rotate-half layout of Hugging Face models:
// element i of a head is paired with element i + dh / 2.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// Fills cosines and sines (positions, head_width / 2) with the angles p * theta^(-2 i / head_width), computed in
/// double.
void apus_rope_table(float *cosines, float *sines, ptrdiff_t positions, ptrdiff_t head_width, double theta);

/// y = x rotated by the angles of each row's position; x and y are (rows, heads, head_width) with a token stride and
/// heads packed.
///
/// - `positions` (rows) index the table (max_positions, head_width / 2); the caller checks that they are inside it.
/// - `inverse` rotates by the negated angle, which is the gradient.
/// - head_width is even. y may be the same memory as x with the same stride.
void apus_rope_f32(
    float *y, ptrdiff_t y_stride, const float *x, ptrdiff_t x_stride, const float *cosines, const float *sines,
    const int32_t *positions, ptrdiff_t rows, ptrdiff_t heads, ptrdiff_t head_width, bool inverse);
void apus_rope_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, const apus_bf16 *x, ptrdiff_t x_stride, const float *cosines, const float *sines,
    const int32_t *positions, ptrdiff_t rows, ptrdiff_t heads, ptrdiff_t head_width, bool inverse);

#endif
