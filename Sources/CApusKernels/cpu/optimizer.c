// AdamW steps in the three precision modes.

#include "apus_optimizer.h"

#include "simd_philox.h"

/// The step's constants, derived once a call.
typedef struct adamw_constants {
    float keep, beta1, rest1, beta2, rest2, root_scale, epsilon, rate, scale;
} adamw_constants;

APUS_INLINE adamw_constants adamw_constants_of(const apus_adamw_step *step) {
    adamw_constants k;
    k.keep = 1.0f - step->learning_rate * step->weight_decay;
    k.beta1 = step->beta1;
    k.rest1 = 1.0f - step->beta1;
    k.beta2 = step->beta2;
    k.rest2 = 1.0f - step->beta2;
    k.root_scale = 1.0f / __builtin_elementwise_sqrt(step->bias_correction2);
    k.epsilon = step->epsilon;
    k.rate = step->learning_rate / step->bias_correction1;
    k.scale = step->gradient_scale;
    return k;
}

/// Moments of parameters that get no gradient for long decay towards denormals, which cost a hundred times a normal
/// number.
APUS_INLINE void flush_tiny(f32x16 *x) {
    f32x16 magnitude = (f32x16)((u32x16)*x & 0x7FFFFFFFu);
    *x = magnitude < 0x1p-120f ? (f32x16)0.0f : *x;
}

APUS_INLINE void adamw_lanes(f32x16 *p, f32x16 *m, f32x16 *v, const f32x16 *gradient, const adamw_constants *k) {
    f32x16 g = *gradient * k->scale;
    *m = *m * k->beta1 + g * k->rest1;
    *v = *v * k->beta2 + (g * g) * k->rest2;
    flush_tiny(m);
    flush_tiny(v);
    f32x16 denominator = __builtin_elementwise_sqrt(*v) * k->root_scale + k->epsilon;
    *p = *p * k->keep - k->rate * (*m / denominator);
}

APUS_CLONES void apus_adamw_f32(
    float *p, float *m, float *v, const float *gradient, ptrdiff_t n, const apus_adamw_step *step) {
    const adamw_constants k = adamw_constants_of(step);
    APUS_EACH16(i, c, n, {
        f32x16 w, m1, v1, g;
        load_f32(&w, p + i, c);
        load_f32(&m1, m + i, c);
        load_f32(&v1, v + i, c);
        load_f32(&g, gradient + i, c);
        adamw_lanes(&w, &m1, &v1, &g, &k);
        store_f32(p + i, &w, c);
        store_f32(m + i, &m1, c);
        store_f32(v + i, &v1, c);
    })
}

APUS_CLONES void apus_adamw_bf16(
    apus_bf16 *weight, float *master, float *m, float *v, const float *gradient, ptrdiff_t n, const apus_adamw_step *step) {
    const adamw_constants k = adamw_constants_of(step);
    APUS_EACH16(i, c, n, {
        f32x16 w, m1, v1, g;
        load_f32(&w, master + i, c);
        load_f32(&m1, m + i, c);
        load_f32(&v1, v + i, c);
        load_f32(&g, gradient + i, c);
        adamw_lanes(&w, &m1, &v1, &g, &k);
        store_f32(master + i, &w, c);
        store_f32(m + i, &m1, c);
        store_f32(v + i, &v1, c);
        store_bf16(weight + i, &w, c);
    })
}

// Runs a body over ranges that stay inside one aligned group of 64 elements; `random(i)` is where the words of
// element i lie. The buffer is longer than a group so that a group of lanes may be read whole from any offset.
#define EACH_RANDOM_GROUP(start, size, random, n, stream, first, ...)                                                  \
    for (ptrdiff_t start = 0; start < (n);) {                                                                          \
        uint32_t buffer[80];                                                                                           \
        uint64_t element = (first) + (uint64_t)start;                                                                  \
        ptrdiff_t skip = (ptrdiff_t)(element & 63u);                                                                   \
        ptrdiff_t size = 64 - skip < (n) - start ? 64 - skip : (n) - start;                                            \
        u32x16 words[4];                                                                                               \
        u32x16 ordered[4];                                                                                             \
        philox_words(words, stream, (element - (uint64_t)skip) >> 2);                                                  \
        interleave_words(ordered, words);                                                                              \
        for (int part = 0; part < 4; ++part) *(u32x16_unaligned *)(buffer + 16 * part) = ordered[part];                \
        *(u32x16_unaligned *)(buffer + 64) = (u32x16)0u;                                                               \
        const uint32_t *random = buffer + skip;                                                                        \
        __VA_ARGS__                                                                                                    \
        start += size;                                                                                                 \
    }

// One random word an element: its lower half rounds the weight, its upper half m, and a multiple's upper half v. Each
// is uniform on its own, which is all that unbiased rounding needs.
APUS_CLONES void apus_adamw_bf16_pure(
    apus_bf16 *weight, apus_bf16 *m, apus_bf16 *v, const apus_bf16 *gradient, ptrdiff_t n, const apus_adamw_step *step,
    apus_random_stream stream, uint64_t first) {
    const adamw_constants k = adamw_constants_of(step);
    EACH_RANDOM_GROUP(start, size, random, n, stream, first, {
        APUS_EACH16(i, c, size, {
            f32x16 w, m1, v1, g;
            ptrdiff_t at = start + i;
            load_bf16(&w, weight + at, c);
            load_bf16(&m1, m + at, c);
            load_bf16(&v1, v + at, c);
            load_bf16(&g, gradient + at, c);
            adamw_lanes(&w, &m1, &v1, &g, &k);
            u32x16 bits = *(const u32x16_unaligned *)(random + i);
            u32x16 upper = bits >> 16, mixed = (bits * 0x9E3779B1u) >> 16;
            store_stochastic_bf16(weight + at, &w, &bits, c);
            store_stochastic_bf16(m + at, &m1, &upper, c);
            store_stochastic_bf16(v + at, &v1, &mixed, c);
        })
    })
}
