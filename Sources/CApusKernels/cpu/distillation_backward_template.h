// Backward of a distillation for one type of gradient. See apus_distillation.h. Undefines its parameters.

APUS_CLONES void BACKWARD(
    GRADIENT *gradient, ptrdiff_t gradient_stride, const float *student, ptrdiff_t student_stride,
    const float *teacher, ptrdiff_t teacher_stride, const float *lse, const float *student_log,
    const float *teacher_log, const int32_t *targets, ptrdiff_t rows, ptrdiff_t width,
    apus_distillation_factors factors) {
    const float scale = factors.scale, weight = factors.scale * factors.weight, inverse = factors.inverse;
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const float *in = student + r * student_stride, *from = teacher + r * teacher_stride;
        GRADIENT *out = gradient + r * gradient_stride;
        int32_t target = targets[r];
        if (target < 0) {
            f32x16 zero = 0.0f;
            APUS_EACH16(i, c, width, { STORE_GRADIENT(out + i, &zero, c); })
            continue;
        }
        float base = lse[r], own = student_log[r], other = teacher_log[r];
        // Taken before the logits are overwritten, and rounded once.
        float at_target = 0.0f;
        if (target < width)
            at_target = scalar_exp(in[target] - base) * scale - scale
                + (scalar_exp(in[target] * inverse - own) - scalar_exp(from[target] * inverse - other)) * weight;
        APUS_EACH16(i, c, width, {
            f32x16 u;
            f32x16 v;
            f32x16 w;
            load_f32(&u, in + i, c);
            load_f32(&w, from + i, c);
            v = u * inverse - own;
            w = w * inverse - other;
            u = u - base;
            vector_exp(&u);
            vector_exp(&v);
            vector_exp(&w);
            u = u * scale + (v - w) * weight;
            STORE_GRADIENT(out + i, &u, c);
        })
        if (target < width) out[target] = GRADIENT_FROM_FLOAT(at_target);
    }
}

#undef GRADIENT
#undef STORE_GRADIENT
#undef GRADIENT_FROM_FLOAT
#undef BACKWARD
