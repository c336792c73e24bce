#ifndef APUS_CLAMP_H
#define APUS_CLAMP_H

// Clamping to a symmetric interval, as OLMoE clips queries, keys and values.

#include <stddef.h>

#include "apus_types.h"

/// y = x held within -limit ... limit; NaN stays NaN. n elements; y may be x.
void apus_clamp_forward_f32(float *y, const float *x, ptrdiff_t n, float limit);
void apus_clamp_forward_bf16(apus_bf16 *y, const apus_bf16 *x, ptrdiff_t n, float limit);

/// dx = dy where |x| <= limit, else 0. dx may be dy.
void apus_clamp_backward_f32(float *dx, const float *dy, const float *x, ptrdiff_t n, float limit);
void apus_clamp_backward_bf16(apus_bf16 *dx, const apus_bf16 *dy, const apus_bf16 *x, ptrdiff_t n, float limit);

#endif
