// A student's logits held against a teacher's. See apus_distillation.h.

#include "apus_distillation.h"

#include "simd_math.h"

#define APUS_TEMPLATE "logsumexp_template.h"
#include "element_types.h"

/// The sum of exp(x * inverse - top) over the block, and with a second row the same weighted by their difference.
typedef struct {
    f32x16 sum;
    f32x16 weighted;
} partial_sums;

APUS_INLINE void add_block(
    partial_sums *to, const float *x, const float *other, ptrdiff_t size, float inverse, float base) {
    APUS_EACH16(i, c, size, {
        f32x16 u;
        f32x16 v;
        load_f32(&u, x + i, c);
        load_f32(&v, other + i, c);
        u = u * inverse;
        v = u - v * inverse;
        u = u - base;
        vector_exp(&u);
        fill_tail(&u, c, 0.0f);
        fill_tail(&v, c, 0.0f);
        to->sum = to->sum + u;
        to->weighted = to->weighted + u * v;
    })
}

/// log(sum(exp(x * inverse))) of a row, and in `difference` the mean of (x - other) * inverse under its softmax, in one
/// pass over memory: blocks fit the first-level cache, and the sums are rescaled when the maximum grows.
APUS_INLINE float row_log(const float *x, const float *other, ptrdiff_t width, float inverse, float *difference) {
    const ptrdiff_t block = 2048;
    const float lowest = -__builtin_inff();
    float top = lowest;
    partial_sums sums;
    sums.sum = 0.0f;
    sums.weighted = 0.0f;
    for (ptrdiff_t start = 0; start < width; start += block) {
        ptrdiff_t size = width - start < block ? width - start : block;
        float here = row_max_f32(x + start, size, inverse);
        if (here > top) {
            if (top > lowest) {
                float shrink = scalar_exp(top - here);
                sums.sum = sums.sum * shrink;
                sums.weighted = sums.weighted * shrink;
            }
            top = here;
        }
        add_block(&sums, x + start, other + start, size, inverse, top > lowest ? top : 0.0f);
    }
    float total = lane_sum(&sums.sum);
    *difference = total == 0.0f ? 0.0f : lane_sum(&sums.weighted) / total;
    return total == 0.0f ? lowest : (top > lowest ? top : 0.0f) + scalar_log(total);
}

APUS_CLONES void apus_divergence_f32(
    float *difference, float *teacher_log, float *student_log, const float *teacher, ptrdiff_t teacher_stride,
    const float *student, ptrdiff_t student_stride, const int32_t *targets, ptrdiff_t rows, ptrdiff_t width,
    float inverse) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        difference[r] = teacher_log[r] = student_log[r] = 0.0f;
        if (targets[r] < 0) continue;
        const float *from = teacher + r * teacher_stride, *to = student + r * student_stride;
        float unused;
        teacher_log[r] = row_log(from, to, width, inverse, &difference[r]);
        student_log[r] = row_log(to, to, width, inverse, &unused);
    }
}

#define GRADIENT float
#define STORE_GRADIENT store_f32
#define GRADIENT_FROM_FLOAT(x) (x)
#define BACKWARD apus_distillation_backward_f32
#include "distillation_backward_template.h"

#define GRADIENT apus_bf16
#define STORE_GRADIENT store_bf16
#define GRADIENT_FROM_FLOAT(x) bf16_from_float(x)
#define BACKWARD apus_distillation_backward_f32_to_bf16
#include "distillation_backward_template.h"
