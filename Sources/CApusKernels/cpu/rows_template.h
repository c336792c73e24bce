// Moving rows for one element type. See apus_rows.h.

APUS_CLONES void NAME(apus_gather_rows)(
    ELEMENT *y, ptrdiff_t y_stride, const ELEMENT *x, ptrdiff_t x_stride, const int32_t *index, const float *scale,
    ptrdiff_t rows, ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        ELEMENT *out = y + r * y_stride;
        if (index[r] < 0) {
            const f32x16 zero = 0.0f;
            APUS_EACH16(i, c, width, { STORE(out + i, &zero, c); })
            continue;
        }
        const ELEMENT *in = x + index[r] * x_stride;
        if (!scale) {
            __builtin_memcpy(out, in, (size_t)width * sizeof(ELEMENT));
            continue;
        }
        float factor = scale[r];
        APUS_EACH16(i, c, width, {
            f32x16 u;
            LOAD(&u, in + i, c);
            u = u * factor;
            STORE(out + i, &u, c);
        })
    }
}

// Four groups of lanes share one look-up of the K rows; the sum over k is in order for every element.
APUS_CLONES void NAME(apus_combine_forward)(
    ELEMENT *y, ptrdiff_t y_stride, const ELEMENT *rows, ptrdiff_t rows_stride, const int32_t *slot_to_row,
    const float *weight, ptrdiff_t tokens, ptrdiff_t choices, ptrdiff_t width, bool accumulate) {
    for (ptrdiff_t t = 0; t < tokens; ++t) {
        ELEMENT *out = y + t * y_stride;
        const int32_t *row = slot_to_row + t * choices;
        const float *w = weight ? weight + t * choices : 0;
        ptrdiff_t i = 0;
        for (; i + 64 <= width; i += 64) {
            f32x16 s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
            if (accumulate) {
                LOAD(&s0, out + i, 16);
                LOAD(&s1, out + i + 16, 16);
                LOAD(&s2, out + i + 32, 16);
                LOAD(&s3, out + i + 48, 16);
            }
            for (ptrdiff_t k = 0; k < choices; ++k) {
                if (row[k] < 0) continue;
                const ELEMENT *in = rows + row[k] * rows_stride + i;
                float factor = w ? w[k] : 1.0f;
                f32x16 u0, u1, u2, u3;
                LOAD(&u0, in, 16);
                LOAD(&u1, in + 16, 16);
                LOAD(&u2, in + 32, 16);
                LOAD(&u3, in + 48, 16);
                s0 = s0 + factor * u0;
                s1 = s1 + factor * u1;
                s2 = s2 + factor * u2;
                s3 = s3 + factor * u3;
            }
            STORE(out + i, &s0, 16);
            STORE(out + i + 16, &s1, 16);
            STORE(out + i + 32, &s2, 16);
            STORE(out + i + 48, &s3, 16);
        }
        ELEMENT *rest = out + i;
        APUS_EACH16(j, c, width - i, {
            f32x16 s = 0.0f;
            if (accumulate) LOAD(&s, rest + j, c);
            for (ptrdiff_t k = 0; k < choices; ++k) {
                if (row[k] < 0) continue;
                f32x16 u;
                LOAD(&u, rows + row[k] * rows_stride + i + j, c);
                s = s + (w ? w[k] : 1.0f) * u;
            }
            STORE(rest + j, &s, c);
        })
    }
}

/// The dot product of two rows in f32, two chains.
APUS_INLINE float NAME(row_dot)(const ELEMENT *a, const ELEMENT *b, ptrdiff_t width) {
    f32x16 s0 = 0.0f, s1 = 0.0f;
    ptrdiff_t i = 0;
    for (; i + 32 <= width; i += 32) {
        f32x16 a0, a1, b0, b1;
        LOAD(&a0, a + i, 16);
        LOAD(&a1, a + i + 16, 16);
        LOAD(&b0, b + i, 16);
        LOAD(&b1, b + i + 16, 16);
        s0 = s0 + a0 * b0;
        s1 = s1 + a1 * b1;
    }
    const ELEMENT *a_rest = a + i, *b_rest = b + i;
    APUS_EACH16(j, c, width - i, {
        f32x16 u, v;
        LOAD(&u, a_rest + j, c);
        LOAD(&v, b_rest + j, c);
        s0 = s0 + u * v;
    })
    s0 = s0 + s1;
    return lane_sum(&s0);
}

APUS_CLONES void NAME(apus_combine_backward)(
    ELEMENT *drows, ptrdiff_t drows_stride, float *dweight, const ELEMENT *dy, ptrdiff_t dy_stride, const ELEMENT *rows,
    ptrdiff_t rows_stride, const int32_t *slot_to_row, const float *weight, ptrdiff_t tokens, ptrdiff_t choices,
    ptrdiff_t width) {
    for (ptrdiff_t t = 0; t < tokens; ++t) {
        const ELEMENT *gradient = dy + t * dy_stride;
        for (ptrdiff_t k = 0; k < choices; ++k) {
            ptrdiff_t slot = t * choices + k, row = slot_to_row[slot];
            // The product comes first: drows may overwrite rows.
            if (dweight) dweight[slot] = row < 0 ? 0.0f : NAME(row_dot)(rows + row * rows_stride, gradient, width);
            if (row < 0 || !drows) continue;
            ELEMENT *out = drows + row * drows_stride;
            float factor = weight ? weight[slot] : 1.0f;
            APUS_EACH16(i, c, width, {
                f32x16 u;
                LOAD(&u, gradient + i, c);
                u = u * factor;
                STORE(out + i, &u, c);
            })
        }
    }
}

APUS_CLONES void NAME(apus_embedding_backward)(
    float *dweight, ptrdiff_t dweight_stride, const ELEMENT *dy, ptrdiff_t dy_stride, const int32_t *tokens,
    ptrdiff_t rows, ptrdiff_t width, int32_t first_token, int32_t last_token) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        int32_t token = tokens[r];
        if (token < 0 || token < first_token || token >= last_token) continue;
        float *out = dweight + token * dweight_stride;
        const ELEMENT *gradient = dy + r * dy_stride;
        APUS_EACH16(i, c, width, {
            f32x16 d, g;
            load_f32(&d, out + i, c);
            LOAD(&g, gradient + i, c);
            d = d + g;
            store_f32(out + i, &d, c);
        })
    }
}
