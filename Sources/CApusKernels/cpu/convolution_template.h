// The gated short convolution for one element type. See apus_convolution.h.

APUS_CLONES void NAME(apus_short_convolution)(
    ELEMENT *y, ptrdiff_t y_stride, const ELEMENT *x, ptrdiff_t x_stride, const ELEMENT *taps, const int32_t *positions,
    ptrdiff_t begin, ptrdiff_t end, ptrdiff_t width, ptrdiff_t tap_count) {
    for (ptrdiff_t t = begin; t < end; ++t) {
        const ELEMENT *row = x + t * x_stride;
        ELEMENT *out = y + t * y_stride;
        const ptrdiff_t reach = reach_of(positions, t, tap_count);
        APUS_EACH16(i, c, width, {
            f32x16 sum = 0.0f, gate;
            for (ptrdiff_t j = 0; j <= reach; ++j) {
                const ELEMENT *earlier = row - j * x_stride + i;
                f32x16 tap, inner, value;
                LOAD(&tap, taps + j * width + i, c);
                LOAD(&inner, earlier + width, c);
                LOAD(&value, earlier + 2 * width, c);
                sum = sum + tap * (inner * value);
            }
            LOAD(&gate, row + i, c);
            sum = gate * sum;
            STORE(out + i, &sum, c);
        })
    }
}

// With s the gated sum, u = c * v and ds = dy * b: db = dy * s, du[t] = sum of taps[j] * ds[t + j] over the rows that read
// t, dc = du * v, dv = du * c, dtaps[j] += ds[t] * u[t - j].
APUS_CLONES void NAME(apus_short_convolution_backward)(
    ELEMENT *dx, ptrdiff_t dx_stride, float *dtaps, const ELEMENT *dy, ptrdiff_t dy_stride, const ELEMENT *x,
    ptrdiff_t x_stride, const ELEMENT *taps, const int32_t *positions, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t rows,
    ptrdiff_t width, ptrdiff_t tap_count) {
    for (ptrdiff_t t = begin; t < end; ++t) {
        const ELEMENT *row = x + t * x_stride;
        const ELEMENT *gradient = dy + t * dy_stride;
        ELEMENT *out = dx + t * dx_stride;
        const ptrdiff_t reach = reach_of(positions, t, tap_count);
        APUS_EACH16(i, c, width, {
            f32x16 sum = 0.0f, up, gate, inner, value, result;
            LOAD(&up, gradient + i, c);
            LOAD(&gate, row + i, c);
            const f32x16 slope = up * gate;
            for (ptrdiff_t j = 0; j <= reach; ++j) {
                const ELEMENT *earlier = row - j * x_stride + i;
                f32x16 tap;
                LOAD(&tap, taps + j * width + i, c);
                LOAD(&inner, earlier + width, c);
                LOAD(&value, earlier + 2 * width, c);
                const f32x16 input = inner * value;
                sum = sum + tap * input;
                if (dtaps) {
                    f32x16 total;
                    load_f32(&total, dtaps + j * width + i, c);
                    total = total + slope * input;
                    store_f32(dtaps + j * width + i, &total, c);
                }
            }
            result = up * sum;
            STORE(out + i, &result, c);
            f32x16 du = 0.0f;
            for (ptrdiff_t j = 0; j < tap_count && t + j < rows; ++j) {
                if (reach_of(positions, t + j, tap_count) < j) continue;
                f32x16 tap;
                LOAD(&tap, taps + j * width + i, c);
                LOAD(&up, gradient + j * dy_stride + i, c);
                LOAD(&gate, row + j * x_stride + i, c);
                du = du + tap * (up * gate);
            }
            LOAD(&inner, row + width + i, c);
            LOAD(&value, row + 2 * width + i, c);
            result = du * value;
            STORE(out + width + i, &result, c);
            result = du * inner;
            STORE(out + 2 * width + i, &result, c);
        })
    }
}
