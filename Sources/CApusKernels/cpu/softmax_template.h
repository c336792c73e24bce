// Softmax, log-sum-exp and sigmoid for one element type. See apus_softmax.h.

/// One row of at most 16 elements, kept in registers: the scores of a few experts.
APUS_INLINE void NAME(softmax_short_row)(ELEMENT *y, const ELEMENT *x, ptrdiff_t width, float scale) {
    f32x16 u;
    LOAD(&u, x, width);
    u = u * scale;
    fill_tail(&u, width, -__builtin_inff());
    float top = lane_max(&u);
    u = u - (top > -__builtin_inff() ? top : 0.0f);
    vector_exp(&u);
    fill_tail(&u, width, 0.0f);
    float total = lane_sum(&u);
    u = u * (total == 0.0f ? 0.0f : 1.0f / total);
    STORE(y, &u, width);
}

APUS_CLONES void NAME(apus_softmax_forward)(
    ELEMENT *y, ptrdiff_t y_stride, const ELEMENT *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width,
    float scale) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        ELEMENT *out = y + r * y_stride;
        const ELEMENT *in = x + r * x_stride;
        if (width <= 16) {
            NAME(softmax_short_row)(out, in, width, scale);
            continue;
        }
        float top = NAME(row_max)(in, width, scale);
        float base = top > -__builtin_inff() ? top : 0.0f;
        f32x16 sum = 0.0f;
        APUS_EACH16(i, c, width, {
            f32x16 u;
            LOAD(&u, in + i, c);
            u = u * scale - base;
            vector_exp(&u);
            fill_tail(&u, c, 0.0f);
            sum = sum + u;
            if (ELEMENT_IS_F32) STORE(out + i, &u, c);
        })
        float total = lane_sum(&sum);
        float inverse = total == 0.0f ? 0.0f : 1.0f / total;
        // bf16 computes the exponentials again: storing them between the passes would round twice.
        APUS_EACH16(i, c, width, {
            f32x16 u;
            if (ELEMENT_IS_F32) {
                LOAD(&u, out + i, c);
            } else {
                LOAD(&u, in + i, c);
                u = u * scale - base;
                vector_exp(&u);
            }
            u = u * inverse;
            STORE(out + i, &u, c);
        })
    }
}

APUS_CLONES void NAME(apus_softmax_backward)(
    ELEMENT *dx, ptrdiff_t dx_stride, const ELEMENT *dy, ptrdiff_t dy_stride, const ELEMENT *y, ptrdiff_t y_stride,
    ptrdiff_t rows, ptrdiff_t width, float scale) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        ELEMENT *out = dx + r * dx_stride;
        const ELEMENT *gradient = dy + r * dy_stride;
        const ELEMENT *probability = y + r * y_stride;
        f32x16 sum = 0.0f;
        APUS_EACH16(i, c, width, {
            f32x16 g, p;
            LOAD(&g, gradient + i, c);
            LOAD(&p, probability + i, c);
            sum = sum + g * p;
        })
        float dot = lane_sum(&sum);
        APUS_EACH16(i, c, width, {
            f32x16 g, p;
            LOAD(&g, gradient + i, c);
            LOAD(&p, probability + i, c);
            g = (scale * p) * (g - dot);
            STORE(out + i, &g, c);
        })
    }
}

APUS_CLONES void NAME(apus_logsumexp)(
    float *lse, const ELEMENT *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        float top;
        lse[r] = NAME(row_logsumexp)(x + r * x_stride, width, &top);
    }
}

APUS_CLONES void NAME(apus_sigmoid_forward)(ELEMENT *y, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u;
        LOAD(&u, x + i, c);
        vector_sigmoid(&u);
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_sigmoid_backward)(ELEMENT *dx, const ELEMENT *dy, const ELEMENT *y, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 g, s;
        LOAD(&g, dy + i, c);
        LOAD(&s, y + i, c);
        g = g * (s * (1.0f - s));
        STORE(dx + i, &g, c);
    })
}
