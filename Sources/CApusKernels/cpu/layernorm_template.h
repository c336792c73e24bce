// LayerNorm for one element type. See apus_norm.h.

APUS_CLONES void NAME(apus_layernorm_forward)(
    ELEMENT *y, ptrdiff_t y_token_stride, ptrdiff_t y_head_stride, float *mean, float *rstd,
    const ELEMENT *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const ELEMENT *weight, const ELEMENT *bias,
    ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, float eps) {
    for (ptrdiff_t t = 0; t < tokens; ++t) {
        for (ptrdiff_t h = 0; h < heads; ++h) {
            ELEMENT *out = y + t * y_token_stride + h * y_head_stride;
            const ELEMENT *in = x + t * x_token_stride + h * x_head_stride;
            f32x16 sum = 0.0f;
            APUS_EACH16(i, c, width, {
                f32x16 u;
                LOAD(&u, in + i, c);
                sum = sum + u;
            })
            float m = lane_sum(&sum) / (float)width;
            // A second pass over the row in cache: E[x^2] - E[x]^2 would cancel for rows far from zero.
            f32x16 squares = 0.0f;
            APUS_EACH16(i, c, width, {
                f32x16 u;
                LOAD(&u, in + i, c);
                u = u - m;
                fill_tail(&u, c, 0.0f);
                squares = squares + u * u;
            })
            float r = reciprocal_root(lane_sum(&squares) / (float)width + eps);
            if (mean) mean[t * heads + h] = m;
            if (rstd) rstd[t * heads + h] = r;
            APUS_EACH16(i, c, width, {
                f32x16 u, w, b = 0.0f;
                LOAD(&u, in + i, c);
                NAME(load_weight)(&w, weight, i, c);
                if (bias) LOAD(&b, bias + i, c);
                u = ((u - m) * r) * w + b;
                STORE(out + i, &u, c);
            })
        }
    }
}

// With n = (x - mean) * rstd and g = dy * weight: dx = rstd * (g - mean(g) - n * mean(g * n)).
APUS_CLONES void NAME(apus_layernorm_backward)(
    ELEMENT *dx, ptrdiff_t dx_token_stride, ptrdiff_t dx_head_stride, float *dweight, float *dbias,
    const ELEMENT *dy, ptrdiff_t dy_token_stride, ptrdiff_t dy_head_stride,
    const ELEMENT *x, ptrdiff_t x_token_stride, ptrdiff_t x_head_stride, const ELEMENT *weight,
    const float *mean, const float *rstd, ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t width, bool accumulate) {
    for (ptrdiff_t t = 0; t < tokens; ++t) {
        for (ptrdiff_t h = 0; h < heads; ++h) {
            ELEMENT *out = dx + t * dx_token_stride + h * dx_head_stride;
            const ELEMENT *gradient = dy + t * dy_token_stride + h * dy_head_stride;
            const ELEMENT *in = x + t * x_token_stride + h * x_head_stride;
            float m = mean[t * heads + h], r = rstd[t * heads + h];
            f32x16 sum = 0.0f, product = 0.0f;
            // Lanes past the end hold dy = 0, so they add nothing.
            APUS_EACH16(i, c, width, {
                f32x16 g, n, w;
                LOAD(&g, gradient + i, c);
                LOAD(&n, in + i, c);
                NAME(load_weight)(&w, weight, i, c);
                n = (n - m) * r;
                f32x16 p = g * n;
                sum = sum + g * w;
                product = product + p * w;
                if (dweight) {
                    f32x16 d;
                    load_f32(&d, dweight + i, c);
                    d = d + p;
                    store_f32(dweight + i, &d, c);
                }
                if (dbias) {
                    f32x16 d;
                    load_f32(&d, dbias + i, c);
                    d = d + g;
                    store_f32(dbias + i, &d, c);
                }
            })
            float mean_g = lane_sum(&sum) / (float)width, mean_gn = lane_sum(&product) / (float)width;
            APUS_EACH16(i, c, width, {
                f32x16 g, n, w;
                LOAD(&g, gradient + i, c);
                LOAD(&n, in + i, c);
                NAME(load_weight)(&w, weight, i, c);
                n = (n - m) * r;
                f32x16 d = r * ((g * w - mean_g) - n * mean_gn);
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
