// Array fills from counter-based random streams.

#include "apus_random.h"

#include "simd_math.h"
#include "simd_philox.h"

/// Sixteen words to floats inside (0, 1); the lanes' values equal `apus_uniform_from_word`.
APUS_INLINE void uniform_lanes(f32x16 *u, const u32x16 *words) {
    *u = (__builtin_convertvector((i32x16)(*words >> 9), f32x16) + 0.5f) * 0x1p-23f;
}

APUS_INLINE void uniform_draws(f32x16 out[4], const u32x16 words[4], float low, float range) {
    u32x16 ordered[4];
    interleave_words(ordered, words);
    for (int i = 0; i < 4; ++i) {
        uniform_lanes(&out[i], &ordered[i]);
        out[i] = out[i] * range + low;
    }
}

// Box-Muller on words (x, y) gives elements 0 and 1 of a block, on (z, w) elements 2 and 3.
APUS_INLINE void normal_draws(f32x16 out[4], const u32x16 words[4], float mean, float deviation) {
    u32x16 draws[4], ordered[4];
    for (int i = 0; i < 4; i += 2) {
        f32x16 radius, turn, sine, cosine;
        uniform_lanes(&radius, &words[i]);
        uniform_lanes(&turn, &words[i + 1]);
        vector_log(&radius);
        radius = __builtin_elementwise_sqrt(radius * -2.0f) * deviation;
        vector_sincos_turns(&sine, &cosine, &turn);
        draws[i] = (u32x16)(radius * cosine + mean);
        draws[i + 1] = (u32x16)(radius * sine + mean);
    }
    interleave_words(ordered, draws);
    for (int i = 0; i < 4; ++i) out[i] = (f32x16)ordered[i];
}

APUS_INLINE void gumbel_draws(f32x16 out[4], const u32x16 words[4], float unused0, float unused1) {
    (void)unused0;
    (void)unused1;
    u32x16 ordered[4];
    interleave_words(ordered, words);
    for (int i = 0; i < 4; ++i) {
        uniform_lanes(&out[i], &ordered[i]);
        vector_log(&out[i]);
        out[i] = -out[i];
        vector_log(&out[i]);
        out[i] = -out[i];
    }
}

APUS_INLINE void word_draws(f32x16 out[4], const u32x16 words[4], float unused0, float unused1) {
    (void)unused0;
    (void)unused1;
    u32x16 ordered[4];
    interleave_words(ordered, words);
    for (int i = 0; i < 4; ++i) out[i] = (f32x16)ordered[i];
}

// Draws come in groups of 64 aligned elements; a range that starts or ends inside a group copies its part of it.
#define FILL(y, n, stream, first, DRAWS, p0, p1, STORE16, ELEMENT)                                                     \
    ptrdiff_t done = 0;                                                                                                \
    while (done < (n)) {                                                                                               \
        uint64_t element = (first) + (uint64_t)done;                                                                   \
        ptrdiff_t skip = (ptrdiff_t)(element & 63u);                                                                   \
        ptrdiff_t size = 64 - skip < (n) - done ? 64 - skip : (n) - done;                                              \
        u32x16 words[4];                                                                                               \
        f32x16 draws[4];                                                                                               \
        philox_words(words, stream, (element - (uint64_t)skip) >> 2);                                                  \
        DRAWS(draws, words, p0, p1);                                                                                   \
        if (size == 64) {                                                                                              \
            for (int i = 0; i < 4; ++i) STORE16((y) + done + 16 * i, &draws[i], 16);                                   \
        } else {                                                                                                       \
            ELEMENT group[64];                                                                                         \
            for (int i = 0; i < 4; ++i) STORE16(group + 16 * i, &draws[i], 16);                                        \
            for (ptrdiff_t i = 0; i < size; ++i) (y)[done + i] = group[skip + i];                                      \
        }                                                                                                              \
        done += size;                                                                                                  \
    }

APUS_INLINE void store_words(uint32_t *p, const f32x16 *x, ptrdiff_t c) {
    (void)c;
    *(u32x16_unaligned *)p = (u32x16)*x;
}

APUS_CLONES void apus_random_words(uint32_t *y, ptrdiff_t n, apus_random_stream stream, uint64_t first) {
    FILL(y, n, stream, first, word_draws, 0.0f, 0.0f, store_words, uint32_t)
}

APUS_CLONES void apus_random_uniform_f32(
    float *y, ptrdiff_t n, apus_random_stream stream, uint64_t first, float low, float high) {
    FILL(y, n, stream, first, uniform_draws, low, high - low, store_f32, float)
}

APUS_CLONES void apus_random_normal_f32(
    float *y, ptrdiff_t n, apus_random_stream stream, uint64_t first, float mean, float deviation) {
    FILL(y, n, stream, first, normal_draws, mean, deviation, store_f32, float)
}

APUS_CLONES void apus_random_gumbel_f32(float *y, ptrdiff_t n, apus_random_stream stream, uint64_t first) {
    FILL(y, n, stream, first, gumbel_draws, 0.0f, 0.0f, store_f32, float)
}
