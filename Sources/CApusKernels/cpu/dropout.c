#include "apus_dropout.h"

#include <string.h>

static inline float widen(apus_bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/// To the nearest, ties to even; a NaN stays one.
static inline apus_bf16 rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return (apus_bf16)((bits >> 16) | 0x40);
    return (apus_bf16)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static inline float kept(float x) { return x; }

#define DROP_ROWS(T, WIDEN, ROUND)                                                                                     \
    float draws[256];                                                                                                  \
    for (ptrdiff_t r = 0; r < rows; ++r) {                                                                             \
        uint64_t number = (uint64_t)numbers[2 * r] * 65536u + (uint64_t)numbers[2 * r + 1];                            \
        uint64_t element = number * dropout.total + dropout.first;                                                     \
        for (ptrdiff_t begin = 0; begin < width; begin += 256) {                                                       \
            ptrdiff_t count = width - begin < 256 ? width - begin : 256;                                               \
            const T *from = x + r * xs + begin;                                                                        \
            T *to = y + r * ys + begin;                                                                                \
            apus_random_uniform_f32(draws, count, dropout.stream, element + (uint64_t)begin, 0.0f, 1.0f);              \
            for (ptrdiff_t i = 0; i < count; ++i) {                                                                    \
                to[i] = draws[i] >= dropout.rate ? ROUND(WIDEN(from[i]) * dropout.factor) : 0;                         \
            }                                                                                                          \
        }                                                                                                              \
    }

void apus_dropout_rows_f32(
    float *y, ptrdiff_t ys, const float *x, ptrdiff_t xs, const float *numbers, ptrdiff_t rows, ptrdiff_t width,
    apus_dropout dropout) {
    DROP_ROWS(float, kept, kept)
}

void apus_dropout_rows_bf16(
    apus_bf16 *y, ptrdiff_t ys, const apus_bf16 *x, ptrdiff_t xs, const float *numbers, ptrdiff_t rows, ptrdiff_t width,
    apus_dropout dropout) {
    DROP_ROWS(apus_bf16, widen, rounded)
}
