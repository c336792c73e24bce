// Mixing two branches for one element type. See apus_mix.h.

APUS_CLONES void NAME(apus_mix_rows)(
    ELEMENT *y, ptrdiff_t y_stride, const ELEMENT *a, ptrdiff_t a_stride, const ELEMENT *b, ptrdiff_t b_stride,
    const float *weight, ptrdiff_t rows, ptrdiff_t width) {
    for (ptrdiff_t t = 0; t < rows; ++t) {
        ELEMENT *out = y + t * y_stride;
        const ELEMENT *first = a + t * a_stride, *second = b + t * b_stride;
        float wa = weight[2 * t], wb = weight[2 * t + 1];
        APUS_EACH16(i, c, width, {
            f32x16 u, v;
            LOAD(&u, first + i, c);
            LOAD(&v, second + i, c);
            u = wa * u + wb * v;
            STORE(out + i, &u, c);
        })
    }
}

APUS_CLONES void NAME(apus_mix_rows_backward)(
    ELEMENT *dx, ptrdiff_t dx_stride, float *dweight, const ELEMENT *dy, ptrdiff_t dy_stride, const ELEMENT *x,
    ptrdiff_t x_stride, const float *weight, ptrdiff_t branch, ptrdiff_t rows, ptrdiff_t width) {
    for (ptrdiff_t t = 0; t < rows; ++t) {
        ELEMENT *out = dx + t * dx_stride;
        const ELEMENT *gradient = dy + t * dy_stride, *value = x + t * x_stride;
        float factor = weight[2 * t + branch];
        f32x16 sum = 0.0f;
        APUS_EACH16(i, c, width, {
            f32x16 u, v;
            LOAD(&u, gradient + i, c);
            LOAD(&v, value + i, c);
            sum = sum + u * v;
            u = factor * u;
            STORE(out + i, &u, c);
        })
        dweight[2 * t + branch] = lane_sum(&sum);
    }
}
