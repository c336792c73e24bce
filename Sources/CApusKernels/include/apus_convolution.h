#ifndef APUS_CONVOLUTION_H
#define APUS_CONVOLUTION_H

// The gated short convolution of hybrid blocks. Rows x[t] = [b | c | v], each `width` wide; taps (W, width), dense;
// row t reads itself and reach(t) = min(positions[t], W - 1, t) rows before it.

#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// y[t] = b[t] * sum over j <= reach(t) of taps[j] * c[t - j] * v[t - j], for the rows begin ... end - 1.
void apus_short_convolution_f32(
    float *y, ptrdiff_t y_stride, const float *x, ptrdiff_t x_stride, const float *taps, const int32_t *positions,
    ptrdiff_t begin, ptrdiff_t end, ptrdiff_t width, ptrdiff_t tap_count);
void apus_short_convolution_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, const apus_bf16 *x, ptrdiff_t x_stride, const apus_bf16 *taps,
    const int32_t *positions, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t width, ptrdiff_t tap_count);

/// dx[t] for the rows begin ... end - 1 of `rows`, and dtaps (W, width) += what these rows of y say of the taps. dtaps
/// may be NULL; dx must overlap nothing.
void apus_short_convolution_backward_f32(
    float *dx, ptrdiff_t dx_stride, float *dtaps, const float *dy, ptrdiff_t dy_stride, const float *x,
    ptrdiff_t x_stride, const float *taps, const int32_t *positions, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t rows,
    ptrdiff_t width, ptrdiff_t tap_count);
void apus_short_convolution_backward_bf16(
    apus_bf16 *dx, ptrdiff_t dx_stride, float *dtaps, const apus_bf16 *dy, ptrdiff_t dy_stride, const apus_bf16 *x,
    ptrdiff_t x_stride, const apus_bf16 *taps, const int32_t *positions, ptrdiff_t begin, ptrdiff_t end,
    ptrdiff_t rows, ptrdiff_t width, ptrdiff_t tap_count);

#endif
