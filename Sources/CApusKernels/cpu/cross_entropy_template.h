// Forward of cross-entropy for one element type. See apus_loss.h.

APUS_CLONES void NAME(apus_cross_entropy_forward)(
    float *loss, float *lse, float *lse_squared, uint8_t *correct, const ELEMENT *logits, ptrdiff_t stride,
    const int32_t *targets, ptrdiff_t rows, ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const ELEMENT *in = logits + r * stride;
        float value = 0.0f, sum = 0.0f;
        uint8_t hit = 0;
        if (targets[r] >= 0) {
            float top, logit = TO_FLOAT(in[targets[r]]);
            sum = NAME(row_logsumexp)(in, width, &top);
            value = sum - logit;
            hit = logit >= top;
        }
        loss[r] = value;
        lse[r] = sum;
        if (lse_squared) lse_squared[r] = sum * sum;
        if (correct) correct[r] = hit;
    }
}
