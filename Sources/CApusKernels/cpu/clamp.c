#include "apus_clamp.h"

#include <string.h>

static inline float widen(apus_bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Comparisons keep a NaN: it is neither below nor above.
static inline float clamped(float x, float limit) { return x < -limit ? -limit : x > limit ? limit : x; }

static inline apus_bf16 truncated(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (apus_bf16)(bits >> 16);
}

void apus_clamp_forward_f32(float *y, const float *x, ptrdiff_t n, float limit) {
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = clamped(x[i], limit);
}

void apus_clamp_forward_bf16(apus_bf16 *y, const apus_bf16 *x, ptrdiff_t n, float limit) {
    // Towards zero, so that the stored bound stays inside the interval; other values are exact.
    for (ptrdiff_t i = 0; i < n; ++i) y[i] = truncated(clamped(widen(x[i]), limit));
}

void apus_clamp_backward_f32(float *dx, const float *dy, const float *x, ptrdiff_t n, float limit) {
    for (ptrdiff_t i = 0; i < n; ++i) dx[i] = x[i] >= -limit && x[i] <= limit ? dy[i] : 0;
}

void apus_clamp_backward_bf16(apus_bf16 *dx, const apus_bf16 *dy, const apus_bf16 *x, ptrdiff_t n, float limit) {
    for (ptrdiff_t i = 0; i < n; ++i) {
        float value = widen(x[i]);
        dx[i] = value >= -limit && value <= limit ? dy[i] : 0;
    }
}
