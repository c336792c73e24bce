// Backward of cross-entropy for one pair of logit and gradient types. See apus_loss.h. Undefines its parameters.

APUS_CLONES void BACKWARD(
    GRADIENT *gradient, ptrdiff_t gradient_stride, const LOGIT *logits, ptrdiff_t stride, const float *lse,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width, float scale) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const LOGIT *in = logits + r * stride;
        GRADIENT *out = gradient + r * gradient_stride;
        int32_t target = targets[r];
        if (target < 0) {
            f32x16 zero = 0.0f;
            APUS_EACH16(i, c, width, { STORE_GRADIENT(out + i, &zero, c); })
            continue;
        }
        float base = lse[r];
        // Taken before the logits are overwritten, and rounded once.
        float at_target = scalar_exp(LOGIT_TO_FLOAT(in[target]) - base) * scale - scale;
        APUS_EACH16(i, c, width, {
            f32x16 u;
            LOAD_LOGIT(&u, in + i, c);
            u = u - base;
            vector_exp(&u);
            u = u * scale;
            STORE_GRADIENT(out + i, &u, c);
        })
        out[target] = GRADIENT_FROM_FLOAT(at_target);
    }
}

#undef LOGIT
#undef LOAD_LOGIT
#undef LOGIT_TO_FLOAT
#undef GRADIENT
#undef STORE_GRADIENT
#undef GRADIENT_FROM_FLOAT
#undef BACKWARD
