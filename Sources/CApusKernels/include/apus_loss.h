#ifndef APUS_LOSS_H
#define APUS_LOSS_H

// Cross-entropy over rows of logits (T, V) with int32 targets. A row whose target is negative is ignored: its loss and
// gradient are zero.

#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// loss[t] = lse[t] - logits[t, target] with lse[t] = log(sum(exp(logits[t, :]))).
///
/// - `lse` (rows) is required and kept for the backward. It is 0 in ignored rows.
/// - a target must be below `width`.
void apus_cross_entropy_forward_f32(
    float *loss, float *lse, const float *logits, ptrdiff_t stride,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width);
void apus_cross_entropy_forward_bf16(
    float *loss, float *lse, const apus_bf16 *logits, ptrdiff_t stride,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width);

/// gradient[t, v] = scale * (softmax(logits)[t, v] - [v == target]).
///
/// `scale` is the loss weight over the number of target tokens of the global batch. `gradient` may be the same memory
/// as `logits` with the same stride (the usual case: the logits are overwritten); the last form takes f32 logits and
/// writes bf16 elsewhere.
void apus_cross_entropy_backward_f32(
    float *gradient, ptrdiff_t gradient_stride, const float *logits, ptrdiff_t stride, const float *lse,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width, float scale);
void apus_cross_entropy_backward_bf16(
    apus_bf16 *gradient, ptrdiff_t gradient_stride, const apus_bf16 *logits, ptrdiff_t stride, const float *lse,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width, float scale);
void apus_cross_entropy_backward_f32_to_bf16(
    apus_bf16 *gradient, ptrdiff_t gradient_stride, const float *logits, ptrdiff_t stride, const float *lse,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width, float scale);

#endif
