#ifndef APUS_SIMD_H
#define APUS_SIMD_H

// Sixteen lanes for every instruction set: explicit vectors that the compiler splits to what the clone's target has.
//
// Helpers take vectors by pointer: by value they would cross an ABI boundary between a clone and a plain inline
// function. Sums run over lanes in one fixed order, so a kernel's result depends on its sizes alone (and on whether
// the CPU has FMA).

#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

#pragma STDC FP_CONTRACT ON

#define APUS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
// The minimum width lets AVX-512 clones use whole registers, which the compiler otherwise avoids.
#define APUS_INLINE static inline __attribute__((always_inline, min_vector_width(512), unused))

typedef float f32x16 __attribute__((ext_vector_type(16)));
typedef float f32x8 __attribute__((ext_vector_type(8)));
typedef float f32x4 __attribute__((ext_vector_type(4)));
typedef double f64x8 __attribute__((ext_vector_type(8)));
typedef double f64x4 __attribute__((ext_vector_type(4)));
typedef int32_t i32x16 __attribute__((ext_vector_type(16)));
typedef uint32_t u32x16 __attribute__((ext_vector_type(16)));
typedef uint16_t u16x16 __attribute__((ext_vector_type(16)));
typedef uint64_t u64x8 __attribute__((ext_vector_type(8)));

typedef f32x16 f32x16_unaligned __attribute__((aligned(4), may_alias));
typedef u32x16 u32x16_unaligned __attribute__((aligned(4), may_alias));
typedef u16x16 u16x16_unaligned __attribute__((aligned(2), may_alias));

/// Runs a body over lane groups: `i` is the first element, `c` the number of elements, 16 (a constant) except at the
/// end.
#define APUS_EACH16(i, c, n, ...)                                                                                      \
    {                                                                                                                  \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + 16 <= (n); i += 16) {                                                                               \
            const ptrdiff_t c = 16;                                                                                    \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        if (i < (n)) {                                                                                                 \
            const ptrdiff_t c = (n) - i;                                                                               \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }

/// Copies c < 16 elements of `size` bytes in at most four fixed moves, which a loop would make fifteen.
APUS_INLINE void copy_part(void *to, const void *from, ptrdiff_t c, size_t size) {
    char *out = to;
    const char *in = from;
    if (c & 8) {
        __builtin_memcpy(out, in, 8 * size);
        out += 8 * size;
        in += 8 * size;
    }
    if (c & 4) {
        __builtin_memcpy(out, in, 4 * size);
        out += 4 * size;
        in += 4 * size;
    }
    if (c & 2) {
        __builtin_memcpy(out, in, 2 * size);
        out += 2 * size;
        in += 2 * size;
    }
    if (c & 1) __builtin_memcpy(out, in, size);
}

/// Loads c elements; lanes from c on are zero.
APUS_INLINE void load_f32(f32x16 *x, const float *p, ptrdiff_t c) {
    if (c == 16) {
        *x = *(const f32x16_unaligned *)p;
    } else {
        float lanes[16] = {0};
        copy_part(lanes, p, c, sizeof(float));
        *x = *(const f32x16_unaligned *)lanes;
    }
}

APUS_INLINE void store_f32(float *p, const f32x16 *x, ptrdiff_t c) {
    if (c == 16) {
        *(f32x16_unaligned *)p = *x;
    } else {
        float lanes[16];
        *(f32x16_unaligned *)lanes = *x;
        copy_part(p, lanes, c, sizeof(float));
    }
}

APUS_INLINE void load_bf16(f32x16 *x, const apus_bf16 *p, ptrdiff_t c) {
    u16x16 half;
    if (c == 16) {
        half = *(const u16x16_unaligned *)p;
    } else {
        apus_bf16 lanes[16] = {0};
        copy_part(lanes, p, c, sizeof(apus_bf16));
        half = *(const u16x16_unaligned *)lanes;
    }
    u32x16 bits = __builtin_convertvector(half, u32x16) << 16;
    *x = (f32x16)bits;
}

APUS_INLINE void store_bits_bf16(apus_bf16 *p, const u32x16 *bits, ptrdiff_t c) {
    u16x16 half = __builtin_convertvector(*bits, u16x16);
    if (c == 16) {
        *(u16x16_unaligned *)p = half;
    } else {
        apus_bf16 lanes[16];
        *(u16x16_unaligned *)lanes = half;
        copy_part(p, lanes, c, sizeof(apus_bf16));
    }
}

/// Stores rounded to nearest even; NaN stays a (quiet) NaN.
APUS_INLINE void store_bf16(apus_bf16 *p, const f32x16 *x, ptrdiff_t c) {
    u32x16 bits = (u32x16)*x;
    u32x16 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    u32x16 quiet = (bits >> 16) | 0x40u;
    rounded = (*x != *x) ? quiet : rounded;
    store_bits_bf16(p, &rounded, c);
}

/// Rounds to bf16 up with probability equal to the discarded fraction; the low 16 bits of `random` decide. Infinity and
/// NaN stay.
APUS_INLINE void store_stochastic_bf16(apus_bf16 *p, const f32x16 *x, const u32x16 *random, ptrdiff_t c) {
    u32x16 bits = (u32x16)*x;
    u32x16 rounded = (bits + (*random & 0xFFFFu)) >> 16;
    u32x16 quiet = (bits >> 16) | ((*x != *x) ? (u32x16)0x40u : (u32x16)0u);
    rounded = ((bits & 0x7F800000u) == 0x7F800000u) ? quiet : rounded;
    store_bits_bf16(p, &rounded, c);
}

/// One bf16 element, rounded to nearest even.
APUS_INLINE apus_bf16 bf16_from_float(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    if (x != x) return (apus_bf16)(bits >> 16 | 0x40u);
    return (apus_bf16)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

APUS_INLINE float bf16_to_float(apus_bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

/// Sets lanes from c on to `value`.
APUS_INLINE void fill_tail(f32x16 *x, ptrdiff_t c, float value) {
    if (c == 16) return;
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    *x = (lane < (int32_t)c) ? *x : (f32x16)value;
}

APUS_INLINE float lane_sum(const f32x16 *x) {
    f32x8 a = x->lo + x->hi;
    f32x4 b = a.lo + a.hi;
    return (b.x + b.z) + (b.y + b.w);
}

/// The largest lane; NaN lanes lose against any number.
APUS_INLINE float lane_max(const f32x16 *x) {
    f32x8 a = x->lo > x->hi ? x->lo : x->hi;
    f32x4 b = a.lo > a.hi ? a.lo : a.hi;
    float p = b.x > b.z ? b.x : b.z, q = b.y > b.w ? b.y : b.w;
    return p > q ? p : q;
}

APUS_INLINE double lane_sum_f64(const f64x8 *x) {
    f64x4 a = x->lo + x->hi;
    return (a.x + a.z) + (a.y + a.w);
}

#endif
