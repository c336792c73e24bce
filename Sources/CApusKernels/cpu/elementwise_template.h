// Element-wise kernels for one element type. See apus_elementwise.h.

APUS_CLONES void NAME(apus_fill)(ELEMENT *y, ptrdiff_t n, float value) {
    f32x16 v = (f32x16)value;
    APUS_EACH16(i, c, n, { STORE(y + i, &v, c); })
}

APUS_CLONES void NAME(apus_add)(ELEMENT *y, const ELEMENT *a, const ELEMENT *b, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, v;
        LOAD(&u, a + i, c);
        LOAD(&v, b + i, c);
        u = u + v;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_multiply)(ELEMENT *y, const ELEMENT *a, const ELEMENT *b, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, v;
        LOAD(&u, a + i, c);
        LOAD(&v, b + i, c);
        u = u * v;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_add_scaled)(ELEMENT *y, float a, const ELEMENT *x, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u, v;
        LOAD(&u, x + i, c);
        LOAD(&v, y + i, c);
        v = v + a * u;
        STORE(y + i, &v, c);
    })
}

APUS_CLONES void NAME(apus_scale)(ELEMENT *y, const ELEMENT *x, float a, ptrdiff_t n) {
    APUS_EACH16(i, c, n, {
        f32x16 u;
        LOAD(&u, x + i, c);
        u = u * a;
        STORE(y + i, &u, c);
    })
}

APUS_CLONES void NAME(apus_add_bias)(
    ELEMENT *y, ptrdiff_t y_stride, const ELEMENT *x, ptrdiff_t x_stride, const ELEMENT *bias, ptrdiff_t rows,
    ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        ELEMENT *out = y + r * y_stride;
        const ELEMENT *in = x + r * x_stride;
        APUS_EACH16(i, c, width, {
            f32x16 u, v;
            LOAD(&u, in + i, c);
            LOAD(&v, bias + i, c);
            u = u + v;
            STORE(out + i, &u, c);
        })
    }
}

// Four rows a pass keep the sums in registers for longer; the additions stay in row order.
APUS_CLONES void NAME(apus_column_sums)(
    float *sums, const ELEMENT *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t width) {
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const ELEMENT *row = x + r * x_stride;
        APUS_EACH16(i, c, width, {
            f32x16 s, u0, u1, u2, u3;
            load_f32(&s, sums + i, c);
            LOAD(&u0, row + i, c);
            LOAD(&u1, row + x_stride + i, c);
            LOAD(&u2, row + 2 * x_stride + i, c);
            LOAD(&u3, row + 3 * x_stride + i, c);
            s = (((s + u0) + u1) + u2) + u3;
            store_f32(sums + i, &s, c);
        })
    }
    for (; r < rows; ++r) {
        const ELEMENT *row = x + r * x_stride;
        APUS_EACH16(i, c, width, {
            f32x16 s, u;
            load_f32(&s, sums + i, c);
            LOAD(&u, row + i, c);
            s = s + u;
            store_f32(sums + i, &s, c);
        })
    }
}
