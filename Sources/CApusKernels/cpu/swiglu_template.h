// SwiGLU for one element type. See apus_activation.h.

APUS_CLONES void NAME(apus_swiglu_forward)(
    ELEMENT *a, ptrdiff_t a_stride, const ELEMENT *h, ptrdiff_t h_stride, const float *row_weight, ptrdiff_t rows,
    ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        ELEMENT *out = a + r * a_stride;
        const ELEMENT *gate = h + r * h_stride, *up = gate + width;
        float w = row_weight ? row_weight[r] : 1.0f;
        APUS_EACH16(i, c, width, {
            f32x16 g, u;
            LOAD(&g, gate + i, c);
            LOAD(&u, up + i, c);
            f32x16 s = g;
            vector_sigmoid(&s);
            u = ((g * s) * u) * w;
            STORE(out + i, &u, c);
        })
    }
}

// silu'(g) = s (1 + g (1 - s)) with s the logistic function of g.
APUS_CLONES void NAME(apus_swiglu_backward)(
    ELEMENT *dh, ptrdiff_t dh_stride, ELEMENT *a, ptrdiff_t a_stride, float *row_dot, const ELEMENT *da,
    ptrdiff_t da_stride, const ELEMENT *h, ptrdiff_t h_stride, const float *row_weight, ptrdiff_t rows,
    ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const ELEMENT *gate = h + r * h_stride, *up = gate + width, *gradient = da + r * da_stride;
        ELEMENT *dgate = dh + r * dh_stride, *dup = dgate + width;
        ELEMENT *again = a ? a + r * a_stride : 0;
        float w = row_weight ? row_weight[r] : 1.0f;
        f32x16 sum = 0.0f;
        APUS_EACH16(i, c, width, {
            f32x16 g, u, d;
            LOAD(&g, gate + i, c);
            LOAD(&u, up + i, c);
            LOAD(&d, gradient + i, c);
            f32x16 s = g;
            vector_sigmoid(&s);
            f32x16 silu = g * s;
            f32x16 act = silu * u;
            sum = sum + d * act;
            d = d * w;
            f32x16 slope = s + silu * (1.0f - s);
            u = (d * u) * slope;
            g = d * silu;
            act = act * w;
            STORE(dgate + i, &u, c);
            STORE(dup + i, &g, c);
            if (again) STORE(again + i, &act, c);
        })
        if (row_dot) row_dot[r] = lane_sum(&sum);
    }
}
