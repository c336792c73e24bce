#ifndef APUS_DISTILLATION_H
#define APUS_DISTILLATION_H

// A student's logits held against a teacher's, both (T, V) or the same columns of both, at a temperature. `inverse` is
// one over it. A row whose target is negative is ignored: what is written for it is zero.

#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// teacher_log[t] = log(sum(exp(teacher[t, :] * inverse))), student_log likewise, and
/// difference[t] = sum over v of softmax(teacher[t, :] * inverse)[v] * (teacher[t, v] - student[t, v]) * inverse.
///
/// The divergence of the two distributions is difference - teacher_log + student_log.
void apus_divergence_f32(
    float *difference, float *teacher_log, float *student_log, const float *teacher, ptrdiff_t teacher_stride,
    const float *student, ptrdiff_t student_stride, const int32_t *targets, ptrdiff_t rows, ptrdiff_t width,
    float inverse);

/// What of a distillation is the same for all rows.
typedef struct {
    /// On the whole gradient.
    float scale;
    /// On the divergence's part of it.
    float weight;
    /// One over the temperature.
    float inverse;
} apus_distillation_factors;

/// gradient[t, v] = scale * (exp(student - lse) - [v == target]
///     + weight * (exp(student * inverse - student_log) - exp(teacher * inverse - teacher_log))).
///
/// A target of `width` or more is in none of the columns. `gradient` may be `student`, with the same stride.
void apus_distillation_backward_f32(
    float *gradient, ptrdiff_t gradient_stride, const float *student, ptrdiff_t student_stride, const float *teacher,
    ptrdiff_t teacher_stride, const float *lse, const float *student_log, const float *teacher_log,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width, apus_distillation_factors factors);
void apus_distillation_backward_f32_to_bf16(
    apus_bf16 *gradient, ptrdiff_t gradient_stride, const float *student, ptrdiff_t student_stride,
    const float *teacher, ptrdiff_t teacher_stride, const float *lse, const float *student_log,
    const float *teacher_log, const int32_t *targets, ptrdiff_t rows, ptrdiff_t width,
    apus_distillation_factors factors);

#endif
