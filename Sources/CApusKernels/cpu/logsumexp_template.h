// The row maximum and log-sum-exp for one element type, shared by softmax and cross-entropy.

/// The largest element of scale * x; NaN elements are passed over, an empty row gives minus infinity.
APUS_INLINE float NAME(row_max)(const ELEMENT *x, ptrdiff_t width, float scale) {
    const float lowest = -__builtin_inff();
    f32x16 m0 = lowest, m1 = lowest;
    ptrdiff_t i = 0;
    for (; i + 32 <= width; i += 32) {
        f32x16 u, v;
        LOAD(&u, x + i, 16);
        LOAD(&v, x + i + 16, 16);
        u = u * scale;
        v = v * scale;
        m0 = u > m0 ? u : m0;
        m1 = v > m1 ? v : m1;
    }
    const ELEMENT *rest = x + i;
    APUS_EACH16(j, c, width - i, {
        f32x16 u;
        LOAD(&u, rest + j, c);
        u = u * scale;
        fill_tail(&u, c, lowest);
        m0 = u > m0 ? u : m0;
    })
    m0 = m1 > m0 ? m1 : m0;
    return lane_max(&m0);
}

/// log(sum(exp(x))) of one row, in one pass over memory.
///
/// Blocks fit the first-level cache: the maximum of a block is taken first, the running sum is rescaled when it grows.
APUS_INLINE float NAME(row_logsumexp)(const ELEMENT *x, ptrdiff_t width) {
    const ptrdiff_t block = 2048;
    const float lowest = -__builtin_inff();
    float top = lowest;
    f32x16 sum = 0.0f;
    for (ptrdiff_t start = 0; start < width; start += block) {
        ptrdiff_t size = width - start < block ? width - start : block;
        const ELEMENT *in = x + start;
        float here = NAME(row_max)(in, size, 1.0f);
        if (here > top) {
            if (top > lowest) sum = sum * scalar_exp(top - here);
            top = here;
        }
        // Nothing but minus infinity (or NaN) so far: any finite base does.
        float base = top > lowest ? top : 0.0f;
        APUS_EACH16(i, c, size, {
            f32x16 u;
            LOAD(&u, in + i, c);
            u = u - base;
            vector_exp(&u);
            fill_tail(&u, c, 0.0f);
            sum = sum + u;
        })
    }
    float total = lane_sum(&sum);
    if (total == 0.0f) return lowest;
    return (top > lowest ? top : 0.0f) + scalar_log(total);
}
