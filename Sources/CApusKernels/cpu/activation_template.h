// GELU and ReLU for one element type. See apus_activation.h.

APUS_CLONES void NAME(apus_gelu_forward)(ELEMENT *y, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, probability, density;
        LOAD(&u, x + i, c);
        vector_normal(&probability, &density, &u);
        u = u * probability;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_gelu_backward)(ELEMENT *dx, const ELEMENT *dy, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, g, probability, density;
        LOAD(&u, x + i, c);
        LOAD(&g, dy + i, c);
        vector_normal(&probability, &density, &u);
        g = g * (probability + (u * 0.3989422804f) * density);
        STORE(dx + i, &g, c);
    })
}

APUS_CLONES void NAME(apus_gelu_tanh_forward)(ELEMENT *y, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, slope, inner;
        LOAD(&u, x + i, c);
        gelu_tanh_parts(&slope, &inner, &u);
        u = u * slope;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_gelu_tanh_backward)(ELEMENT *dx, const ELEMENT *dy, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, g, slope, inner;
        LOAD(&u, x + i, c);
        LOAD(&g, dy + i, c);
        gelu_tanh_parts(&slope, &inner, &u);
        g = g * (slope + (u * slope) * ((1.0f - slope) * inner));
        STORE(dx + i, &g, c);
    })
}

APUS_CLONES void NAME(apus_relu_forward)(ELEMENT *y, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u;
        LOAD(&u, x + i, c);
        u = u < 0.0f ? (f32x16)0.0f : u;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_relu_backward)(ELEMENT *dx, const ELEMENT *dy, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, g;
        LOAD(&u, x + i, c);
        LOAD(&g, dy + i, c);
        g = u > 0.0f ? g : (f32x16)0.0f;
        STORE(dx + i, &g, c);
    })
}
