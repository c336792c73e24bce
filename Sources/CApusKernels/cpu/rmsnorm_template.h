// RMSNorm for one element type. See apus_norm.h.

APUS_INLINE void NAME(load_weight)(f32x16 *w, const ELEMENT *weight, ptrdiff_t i, ptrdiff_t c) {
    *w = 1.0f;
    if (weight) LOAD(w, weight + i, c);
}

/// 1 / sqrt(mean(x^2) + eps) of one row; four chains hide the latency of the sum.
APUS_INLINE float NAME(row_rstd)(const ELEMENT *x, ptrdiff_t width, float eps) {
    f32x16 s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    ptrdiff_t i = 0;
    for (; i + 64 <= width; i += 64) {
        f32x16 u0, u1, u2, u3;
        LOAD(&u0, x + i, 16);
        LOAD(&u1, x + i + 16, 16);
        LOAD(&u2, x + i + 32, 16);
        LOAD(&u3, x + i + 48, 16);
        s0 = s0 + u0 * u0;
        s1 = s1 + u1 * u1;
        s2 = s2 + u2 * u2;
        s3 = s3 + u3 * u3;
    }
    const ELEMENT *rest = x + i;
    APUS_EACH16(j, c, width - i, {
        f32x16 u;
        LOAD(&u, rest + j, c);
        s0 = s0 + u * u;
    })
    s0 = (s0 + s1) + (s2 + s3);
    return reciprocal_root(lane_sum(&s0) / (float)width + eps);
}

APUS_INLINE void NAME(scale_row)(ELEMENT *y, const ELEMENT *x, const ELEMENT *weight, float rstd, ptrdiff_t width) {
    APUS_EACH16(i, c, width, {
        f32x16 u, w;
        LOAD(&u, x + i, c);
        NAME(load_weight)(&w, weight, i, c);
        u = (u * rstd) * w;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_rmsnorm_forward)(
    ELEMENT *y, ptrdiff_t y_token_stride, ptrdiff_t y_head_stride, float *rstd,
    const ELEMENT *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const ELEMENT *weight,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, float eps) {
    for (ptrdiff_t t = 0; t < tokens; ++t) {
        for (ptrdiff_t h = 0; h < heads; ++h) {
            const ELEMENT *in = x + t * x_token_stride + h * x_head_stride;
            float r = NAME(row_rstd)(in, width, eps);
            if (rstd) rstd[t * heads + h] = r;
            NAME(scale_row)(y + t * y_token_stride + h * y_head_stride, in, weight, r, width);
        }
    }
}

APUS_CLONES void NAME(apus_add_rmsnorm_forward)(
    ELEMENT *y, ptrdiff_t y_stride, ELEMENT *sum, ptrdiff_t sum_stride, float *rstd,
    const ELEMENT *x, ptrdiff_t x_stride, const ELEMENT *residual, ptrdiff_t residual_stride, const ELEMENT *weight,
    ptrdiff_t rows, ptrdiff_t width, float eps) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const ELEMENT *a = x + r * x_stride;
        const ELEMENT *b = residual + r * residual_stride;
        ELEMENT *s = sum + r * sum_stride;
        APUS_EACH16(i, c, width, {
            f32x16 u, v;
            LOAD(&u, a + i, c);
            LOAD(&v, b + i, c);
            u = u + v;
            STORE(s + i, &u, c);
        })
        // The statistics are those of the stored sum, which is what the backward reads.
        float value = NAME(row_rstd)(s, width, eps);
        if (rstd) rstd[r] = value;
        NAME(scale_row)(y + r * y_stride, s, weight, value, width);
    }
}

// With n = x * rstd and g = dy * weight: dx = rstd * (g - n * mean(g * n)), dweight += dy * n.
APUS_CLONES void NAME(apus_rmsnorm_backward)(
    ELEMENT *dx, ptrdiff_t dx_token_stride, ptrdiff_t dx_head_stride, float *dweight,
    const ELEMENT *dy, ptrdiff_t dy_token_stride, ptrdiff_t dy_head_stride,
    const ELEMENT *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const ELEMENT *weight, const float *rstd,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, bool accumulate) {
    for (ptrdiff_t t = 0; t < tokens; ++t) {
        for (ptrdiff_t h = 0; h < heads; ++h) {
            ELEMENT *out = dx + t * dx_token_stride + h * dx_head_stride;
            const ELEMENT *gradient = dy + t * dy_token_stride + h * dy_head_stride;
            const ELEMENT *in = x + t * x_token_stride + h * x_head_stride;
            float r = rstd[t * heads + h];
            f32x16 sum = 0.0f;
            APUS_EACH16(i, c, width, {
                f32x16 g, n, w;
                LOAD(&g, gradient + i, c);
                LOAD(&n, in + i, c);
                NAME(load_weight)(&w, weight, i, c);
                f32x16 p = g * (n * r);
                sum = sum + p * w;
                if (dweight) {
                    f32x16 d;
                    load_f32(&d, dweight + i, c);
                    d = d + p;
                    store_f32(dweight + i, &d, c);
                }
            })
            float mean = lane_sum(&sum) / (float)width;
            APUS_EACH16(i, c, width, {
                f32x16 g, n, w;
                LOAD(&g, gradient + i, c);
                LOAD(&n, in + i, c);
                NAME(load_weight)(&w, weight, i, c);
                f32x16 d = r * (g * w - (n * r) * mean);
                if (accumulate) {
                    f32x16 old;
                    LOAD(&old, out + i, c);
                    d = d + old;
                }
                STORE(out + i, &d, c);
            })
        }
    }
}
