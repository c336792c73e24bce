// Forward of cross-entropy for one element type. See apus_loss.h.

APUS_CLONES void NAME(apus_cross_entropy_forward)(
    float *loss, float *lse, const ELEMENT *logits, ptrdiff_t stride, const int32_t *targets, ptrdiff_t rows,
    ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const ELEMENT *in = logits + r * stride;
        const bool counts = targets[r] >= 0;
        lse[r] = counts ? NAME(row_logsumexp)(in, width) : 0.0f;
        loss[r] = counts ? lse[r] - TO_FLOAT(in[targets[r]]) : 0.0f;
    }
}
