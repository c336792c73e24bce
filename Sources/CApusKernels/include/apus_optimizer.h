#ifndef APUS_OPTIMIZER_H
#define APUS_OPTIMIZER_H

// Optimizer steps over n contiguous elements, in the three precision modes: f32; bf16 (bf16 weights written from an
// f32 master, f32 moments and gradients); bf16_pure (everything stored in bf16, f32 inside, stochastic rounding).

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "apus_random.h"
#include "apus_types.h"

/// What one AdamW step needs to know (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2).
///
/// With g = gradient_scale * gradient, at step t = 1, 2, ...:
///   p -= learning_rate * weight_decay * p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
///   p -= learning_rate / bias_correction1 * m / (sqrt(v) / sqrt(bias_correction2) + epsilon)
/// Moments below 2^-120 in magnitude become 0: those of unused rows would otherwise decay into slow denormals.
typedef struct apus_adamw_step {
    float learning_rate;
    float beta1;
    float beta2;
    float epsilon;
    float weight_decay;
    float bias_correction1;  // 1 - beta1^t
    float bias_correction2;  // 1 - beta2^t
    float gradient_scale;    // clip coefficient, loss divisor
} apus_adamw_step;

/// AdamW, all f32.
void apus_adamw_f32(float *p, float *m, float *v, const float *gradient, ptrdiff_t n, const apus_adamw_step *step);

/// AdamW on an f32 master; `weight` receives the master rounded to nearest even.
void apus_adamw_bf16(
    apus_bf16 *weight, float *master, float *m, float *v, const float *gradient, ptrdiff_t n, const apus_adamw_step *step);

/// AdamW with everything in bf16. Weight and moments are rounded stochastically (up with probability equal to the
/// discarded fraction) from the random words of elements first ..< first + n of the stream.
void apus_adamw_bf16_pure(
    apus_bf16 *weight, apus_bf16 *m, apus_bf16 *v, const apus_bf16 *gradient, ptrdiff_t n, const apus_adamw_step *step,
    apus_random_stream stream, uint64_t first);

#endif
