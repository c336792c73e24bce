// Softmax, log-sum-exp and sigmoid.

#include "apus_softmax.h"

#include "simd_math.h"

#define APUS_TEMPLATE "logsumexp_template.h"
#include "element_types.h"

/// One row of at most 16 elements, kept in registers: the scores of a few experts.
APUS_INLINE void softmax_short_row(float *y, const float *x, ptrdiff_t width, float scale) {
    f32x16 u;
    load_f32(&u, x, width);
    u = u * scale;
    fill_tail(&u, width, -__builtin_inff());
    float top = lane_max(&u);
    u = u - (top > -__builtin_inff() ? top : 0.0f);
    vector_exp(&u);
    fill_tail(&u, width, 0.0f);
    float total = lane_sum(&u);
    u = u * (total == 0.0f ? 0.0f : 1.0f / total);
    store_f32(y, &u, width);
}

APUS_CLONES void apus_softmax_forward_f32(
    float *y, ptrdiff_t y_stride, const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width,
    float scale) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        float *out = y + r * y_stride;
        const float *in = x + r * x_stride;
        if (width <= 16) {
            softmax_short_row(out, in, width, scale);
            continue;
        }
        float top = row_max_f32(in, width, scale);
        float base = top > -__builtin_inff() ? top : 0.0f;
        f32x16 sum = 0.0f;
        APUS_EACH16(i, c, width, {
            f32x16 u;
            load_f32(&u, in + i, c);
            u = u * scale - base;
            vector_exp(&u);
            fill_tail(&u, c, 0.0f);
            sum = sum + u;
            store_f32(out + i, &u, c);
        })
        float total = lane_sum(&sum);
        float inverse = total == 0.0f ? 0.0f : 1.0f / total;
        APUS_EACH16(i, c, width, {
            f32x16 u;
            load_f32(&u, out + i, c);
            u = u * inverse;
            store_f32(out + i, &u, c);
        })
    }
}

APUS_CLONES void apus_softmax_backward_f32(
    float *dx, ptrdiff_t dx_stride, const float *dy, ptrdiff_t dy_stride, const float *y, ptrdiff_t y_stride,
    ptrdiff_t rows, ptrdiff_t width, float scale) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        float *out = dx + r * dx_stride;
        const float *gradient = dy + r * dy_stride;
        const float *probability = y + r * y_stride;
        f32x16 sum = 0.0f;
        APUS_EACH16(i, c, width, {
            f32x16 g, p;
            load_f32(&g, gradient + i, c);
            load_f32(&p, probability + i, c);
            sum = sum + g * p;
        })
        float dot = lane_sum(&sum);
        APUS_EACH16(i, c, width, {
            f32x16 g, p;
            load_f32(&g, gradient + i, c);
            load_f32(&p, probability + i, c);
            g = (scale * p) * (g - dot);
            store_f32(out + i, &g, c);
        })
    }
}

APUS_CLONES void apus_logsumexp_f32(
    float *lse, const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        lse[r] = row_logsumexp_f32(x + r * x_stride, width);
    }
}

APUS_CLONES void apus_sigmoid_forward_f32(float *y, const float *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u;
        load_f32(&u, x + i, c);
        vector_sigmoid(&u);
        store_f32(y + i, &u, c);
    })
}

APUS_CLONES void apus_sigmoid_backward_f32(float *dx, const float *dy, const float *y, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 g, s;
        load_f32(&g, dy + i, c);
        load_f32(&s, y + i, c);
        g = g * (s * (1.0f - s));
        store_f32(dx + i, &g, c);
    })
}
