// Rotary position embedding for one element type. See apus_rope.h.

APUS_CLONES static void NAME(rope_neighbours)(
    ELEMENT *out, const ELEMENT *in, const float *cosine, const float *sine, ptrdiff_t pairs, float sign) {
    for (ptrdiff_t i = 0; i < pairs; ++i) {
        float a = TO_FLOAT(in[2 * i]), b = TO_FLOAT(in[2 * i + 1]), sn = sine[i] * sign;
        out[2 * i] = FROM_FLOAT(a * cosine[i] - b * sn);
        out[2 * i + 1] = FROM_FLOAT(b * cosine[i] + a * sn);
    }
}

APUS_CLONES void NAME(apus_rope)(
    ELEMENT *y, ptrdiff_t y_stride, ptrdiff_t y_head_stride, const ELEMENT *x, ptrdiff_t x_stride,
    ptrdiff_t x_head_stride, const float *cosines, const float *sines, const int32_t *positions, ptrdiff_t rows,
    ptrdiff_t heads, ptrdiff_t width, bool neighbours, bool inverse) {
    ptrdiff_t pairs = width / 2;
    float sign = inverse ? -1.0f : 1.0f;
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const float *cosine = cosines + positions[r] * pairs, *sine = sines + positions[r] * pairs;
        for (ptrdiff_t h = 0; h < heads; ++h) {
            const ELEMENT *in = x + r * x_stride + h * x_head_stride;
            ELEMENT *out = y + r * y_stride + h * y_head_stride;
            if (neighbours) {
                NAME(rope_neighbours)(out, in, cosine, sine, pairs, sign);
                continue;
            }
            APUS_EACH16(i, c, pairs, {
                f32x16 a, b, cs, sn;
                LOAD(&a, in + i, c);
                LOAD(&b, in + pairs + i, c);
                load_f32(&cs, cosine + i, c);
                load_f32(&sn, sine + i, c);
                sn = sn * sign;
                f32x16 p = a * cs - b * sn;
                f32x16 q = b * cs + a * sn;
                STORE(out + i, &p, c);
                STORE(out + pairs + i, &q, c);
            })
        }
    }
}
