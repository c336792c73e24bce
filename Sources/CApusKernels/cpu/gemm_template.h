// Tiles and packing for one vector width, written once and included by a file for each instruction set.
// The including file defines GEMM_WIDTH (f32 lanes of a vector), GEMM_MR (rows of a tile) and GEMM_FMA(acc, a, b),
// and sets the target of the functions. GEMM_PAIRS, if defined, packs two bf16 of consecutive k in a 32-bit lane.
// A tile is GEMM_MR x 2 * GEMM_WIDTH: all its sums stay in registers.

#include "gemm_internal.h"

#define GEMM_NR (2 * GEMM_WIDTH)
#define GEMM_INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((ext_vector_type(GEMM_WIDTH)));
typedef float vec_unaligned __attribute__((ext_vector_type(GEMM_WIDTH), aligned(4)));
typedef uint16_t vec16_unaligned __attribute__((ext_vector_type(GEMM_WIDTH), aligned(2)));
typedef uint32_t vec_bits __attribute__((ext_vector_type(GEMM_WIDTH)));

GEMM_INLINE vec load(const float *p)
{
    return *(const vec_unaligned *)p;
}

GEMM_INLINE void store(float *p, vec x)
{
    *(vec_unaligned *)p = x;
}

GEMM_INLINE vec load_bf16(const apus_bf16 *p)
{
    vec_bits wide = __builtin_convertvector(*(const vec16_unaligned *)p, vec_bits) << 16;
    return __builtin_bit_cast(vec, wide);
}

/// Rounds to nearest even; a NaN stays a NaN.
GEMM_INLINE void store_bf16(apus_bf16 *p, vec x)
{
    vec_bits bits = __builtin_bit_cast(vec_bits, x);
    vec_bits rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    vec_bits nan = __builtin_bit_cast(vec_bits, (bits & 0x7fffffffu) > 0x7f800000u);
    rounded = (rounded & ~nan) | ((bits | 0x400000u) & nan);
    *(vec16_unaligned *)p = __builtin_convertvector(rounded >> 16, vec16_unaligned);
}

// MARK: tile

/// How many steps ahead a tile asks for B.
#define GEMM_AHEAD 8

/// Adds up `steps` outer products. `asks` is known where this is inlined: only a loop that asks for more pays for it.
GEMM_INLINE void add_steps(const int mr, const int asks, ptrdiff_t steps, const float *a, const float *b,
                           ptrdiff_t b_step, gemm_ahead ahead, vec acc[GEMM_MR][2])
{
#pragma clang loop unroll_count(2)
    for (ptrdiff_t p = 0; p < steps; p++) {
        vec b0 = load(b), b1 = load(b + GEMM_WIDTH);
        // Steps are far apart when B is read in place, where the hardware does not foresee them.
        __builtin_prefetch(b + GEMM_AHEAD * b_step);
        __builtin_prefetch(b + GEMM_AHEAD * b_step + GEMM_NR - 1);
        if (asks) {
            __builtin_prefetch(ahead.from, 0, 2);
            ahead.from += ahead.step;
        }
#pragma clang loop unroll(full)
        for (int i = 0; i < mr; i++) {
            vec ai = (vec)a[i];
            acc[i][0] = GEMM_FMA(acc[i][0], ai, b0);
            acc[i][1] = GEMM_FMA(acc[i][1], ai, b1);
        }
        a += mr;
        b += b_step;
    }
}

GEMM_INLINE void tile_rows(const int mr, ptrdiff_t steps, const float *a, const float *b, ptrdiff_t b_step,
                           gemm_ahead ahead, gemm_start start, float *c, ptrdiff_t ldc, float alpha, float beta)
{
    vec acc[GEMM_MR][2];
#pragma clang loop unroll(full)
    for (int i = 0; i < mr; i++) {
        acc[i][0] = start == GEMM_CONTINUE ? load(c + i * ldc) : (vec)0.0f;
        acc[i][1] = start == GEMM_CONTINUE ? load(c + i * ldc + GEMM_WIDTH) : (vec)0.0f;
        // The tile's rows of C are far apart: ask for them before the loop that hides the wait.
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + GEMM_NR - 1, 1);
    }
    if (ahead.from)
        add_steps(mr, 1, steps, a, b, b_step, ahead, acc);
    else
        add_steps(mr, 0, steps, a, b, b_step, ahead, acc);
    {
        // Not contracted: a result must not depend on which store path produced it.
#pragma clang fp contract(off)
#pragma clang loop unroll(full)
        for (int i = 0; i < mr; i++) {
            float *row = c + i * ldc;
            vec x0 = acc[i][0] * alpha, x1 = acc[i][1] * alpha;
            if (beta != 0) {
                x0 += load(row) * beta;
                x1 += load(row + GEMM_WIDTH) * beta;
            }
            store(row, x0);
            store(row + GEMM_WIDTH, x1);
        }
    }
}

#define GEMM_TILE(rows)                                                                                                \
    static void tile_##rows(ptrdiff_t steps, const float *a, const float *b, ptrdiff_t b_step, gemm_ahead ahead,       \
                            gemm_start start, float *c, ptrdiff_t ldc, float alpha, float beta)                        \
    {                                                                                                                  \
        tile_rows(rows, steps, a, b, b_step, ahead, start, c, ldc, alpha, beta);                                       \
    }

static void finish(const apus_gemm_args *g, const float *sums, const float *partial, ptrdiff_t partial_stride,
                   ptrdiff_t row, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, float beta)
{
#pragma clang fp contract(off)
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t at = (row + i) * g->ldc + column;
        const float *sum = sums + i * GEMM_NR, *part = partial ? partial + i * partial_stride : NULL;
        ptrdiff_t j = 0;
        for (; j + GEMM_WIDTH <= columns; j += GEMM_WIDTH) {
            vec x = load(sum + j);
            if (part)
                x += load(part + j);
            x *= g->alpha;
            if (g->c_type == APUS_BF16) {
                apus_bf16 *c = (apus_bf16 *)g->c + at + j;
                store_bf16(c, beta != 0 ? x + load_bf16(c) * beta : x);
            } else {
                float *c = (float *)g->c + at + j;
                store(c, beta != 0 ? x + load(c) * beta : x);
            }
        }
        for (; j < columns; j++)
            gemm_store(g->c, at + j, g->c_type, part ? sum[j] + part[j] : sum[j], g->alpha, beta);
    }
}

// MARK: packing

/// Two bf16 make a word here, so a row may start on any even address.
typedef float quad __attribute__((ext_vector_type(4), aligned(2)));

/// Four floats from each of GEMM_WIDTH / 4 rows, side by side. Joining with memory spares the shuffle unit.
GEMM_INLINE vec join_quads(const char *const row[GEMM_WIDTH], int first, ptrdiff_t offset)
{
    quad q0 = *(const quad *)(row[first] + offset);
#if GEMM_WIDTH == 4
    return q0;
#else
    quad q1 = *(const quad *)(row[first + 4] + offset);
#if GEMM_WIDTH == 8
    return __builtin_shufflevector(q0, q1, 0, 1, 2, 3, 4, 5, 6, 7);
#else
    quad q2 = *(const quad *)(row[first + 8] + offset), q3 = *(const quad *)(row[first + 12] + offset);
    vec x = __builtin_shufflevector(q0, q1, 0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    vec y = __builtin_shufflevector(q2, q2, 0, 1, 2, 3, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    vec z = __builtin_shufflevector(q3, q3, 0, 1, 2, 3, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    x = __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, -1, -1, -1, -1);
    return __builtin_shufflevector(x, z, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19);
#endif
#endif
}

#if GEMM_WIDTH == 16
#define GEMM_INTERLEAVE(x, y, a, b, c, d)                                                                              \
    __builtin_shufflevector(x, y, a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12,  \
                            c + 12, d + 12)
#elif GEMM_WIDTH == 8
#define GEMM_INTERLEAVE(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d, a + 4, b + 4, c + 4, d + 4)
#else
#define GEMM_INTERLEAVE(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#endif

/// x[j][i] = 32-bit word j of row i, for GEMM_WIDTH rows and words starting `offset` bytes into each row.
GEMM_INLINE void transpose_rows(const char *const row[GEMM_WIDTH], ptrdiff_t offset, vec x[GEMM_WIDTH])
{
    enum { W = GEMM_WIDTH };
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++)
#pragma clang loop unroll(full)
        for (int j = i; j < W; j += 4)
            x[j] = join_quads(row, i, offset + (j - i) * 4);
#pragma clang loop unroll(full)
    for (int j = 0; j < W; j += 4) {
        vec low01 = GEMM_INTERLEAVE(x[j], x[j + 1], 0, W, 1, W + 1);
        vec high01 = GEMM_INTERLEAVE(x[j], x[j + 1], 2, W + 2, 3, W + 3);
        vec low23 = GEMM_INTERLEAVE(x[j + 2], x[j + 3], 0, W, 1, W + 1);
        vec high23 = GEMM_INTERLEAVE(x[j + 2], x[j + 3], 2, W + 2, 3, W + 3);
        x[j] = GEMM_INTERLEAVE(low01, low23, 0, 1, W, W + 1);
        x[j + 1] = GEMM_INTERLEAVE(low01, low23, 2, 3, W + 2, W + 3);
        x[j + 2] = GEMM_INTERLEAVE(high01, high23, 0, 1, W, W + 1);
        x[j + 3] = GEMM_INTERLEAVE(high01, high23, 2, 3, W + 2, W + 3);
    }
}

#ifdef GEMM_PAIRS
enum { K_UNIT = 2 };
#else
enum { K_UNIT = 1 };
#endif

/// One packed 32-bit lane at step `step` of a lane stored along a row of `k` values.
GEMM_INLINE float step_of_row(const char *row, ptrdiff_t step, ptrdiff_t k, apus_dtype type)
{
    if (K_UNIT == 1)
        return gemm_load(row, step, type);
    const apus_bf16 *p = (const apus_bf16 *)row + 2 * step;
    uint32_t high = 2 * step + 1 < k ? p[1] : 0;
    return __builtin_bit_cast(float, p[0] | high << 16);
}

/// Lanes are stored rows: transposes squares of 32-bit words, which hold one f32 or two bf16 along k. A square
/// written at a width below GEMM_WIDTH spills into the next step, which is written after it.
GEMM_INLINE void pack_rows(const gemm_operand *x, ptrdiff_t lane0, ptrdiff_t lanes, ptrdiff_t width, ptrdiff_t k0,
                           ptrdiff_t k, float *dst, const apus_dtype type)
{
    const int splits = type == APUS_BF16 && K_UNIT == 1;
    const ptrdiff_t word_k = type == APUS_BF16 ? 2 : 1, words = k / word_k, steps = (k + K_UNIT - 1) / K_UNIT;
    for (ptrdiff_t l0 = 0; l0 < width; l0 += GEMM_WIDTH) {
        const char *row[GEMM_WIDTH];
        const ptrdiff_t here = width - l0 < GEMM_WIDTH ? width - l0 : GEMM_WIDTH;
        for (ptrdiff_t i = 0; i < GEMM_WIDTH; i++) {
            ptrdiff_t lane = l0 + i < lanes ? l0 + i : lanes - 1;
            row[i] = gemm_row(x, lane0 + lane) + k0 * (type == APUS_BF16 ? 2 : 4);
        }
        ptrdiff_t word = 0;
        for (; word + GEMM_WIDTH <= words; word += GEMM_WIDTH) {
            vec square[GEMM_WIDTH];
            transpose_rows(row, word * 4, square);
            float *out = dst + (splits ? 2 * word : word) * width + l0;
#pragma clang loop unroll(full)
            for (int i = 0; i < GEMM_WIDTH; i++) {
                if (splits) {
                    vec_bits pair = __builtin_bit_cast(vec_bits, square[i]);
                    store(out + 2 * i * width, __builtin_bit_cast(vec, pair << 16));
                    store(out + (2 * i + 1) * width, __builtin_bit_cast(vec, pair & 0xffff0000u));
                } else {
                    store(out + i * width, square[i]);
                }
            }
        }
        for (ptrdiff_t s = splits ? 2 * word : word; s < steps; s++)
            for (ptrdiff_t i = 0; i < here; i++)
                dst[s * width + l0 + i] = step_of_row(row[i], s, k, type);
    }
}

#ifdef GEMM_PAIRS
/// Interleaves two stored rows of k; `odd` may be NULL past the last k.
GEMM_INLINE void pack_step(const char *even, const char *odd, ptrdiff_t lanes, ptrdiff_t width, float *dst,
                           const apus_dtype type)
{
    (void)type;
    const apus_bf16 *p = (const apus_bf16 *)even, *q = (const apus_bf16 *)odd;
    ptrdiff_t i = 0;
    for (; q && i + GEMM_WIDTH <= lanes; i += GEMM_WIDTH) {
        vec_bits low = __builtin_convertvector(*(const vec16_unaligned *)(p + i), vec_bits);
        vec_bits high = __builtin_convertvector(*(const vec16_unaligned *)(q + i), vec_bits);
        store(dst + i, __builtin_bit_cast(vec, low | high << 16));
    }
    for (; i < lanes; i++)
        dst[i] = __builtin_bit_cast(float, p[i] | (q ? (uint32_t)q[i] << 16 : 0));
    for (; i < width; i++)
        dst[i] = 0;
}
#else
typedef float half_unaligned __attribute__((ext_vector_type(GEMM_WIDTH / 2), aligned(4)));
typedef uint16_t half16_unaligned __attribute__((ext_vector_type(GEMM_WIDTH / 2), aligned(2)));
typedef uint32_t half_bits __attribute__((ext_vector_type(GEMM_WIDTH / 2)));

GEMM_INLINE void copy_half(const char *src, ptrdiff_t i, float *dst, const apus_dtype type)
{
    if (type == APUS_BF16) {
        half16_unaligned narrow = *(const half16_unaligned *)((const apus_bf16 *)src + i);
        *(half_unaligned *)(dst + i) =
            __builtin_bit_cast(half_unaligned, __builtin_convertvector(narrow, half_bits) << 16);
    } else {
        *(half_unaligned *)(dst + i) = *(const half_unaligned *)((const float *)src + i);
    }
}

/// Copies one stored row of k. Two halves that overlap cover any count from half a vector to a whole one.
GEMM_INLINE void pack_step(const char *src, const char *odd, ptrdiff_t lanes, ptrdiff_t width, float *dst,
                           const apus_dtype type)
{
    const ptrdiff_t half = GEMM_WIDTH / 2;
    ptrdiff_t i = 0;
    (void)odd;
    if (lanes >= half) {
        for (; i + half <= lanes; i += half)
            copy_half(src, i, dst, type);
        if (i < lanes)
            copy_half(src, lanes - half, dst, type);
        i = lanes;
    }
    for (; i < lanes; i++)
        dst[i] = gemm_load(src, i, type);
    for (; i < width; i++)
        dst[i] = 0;
}
#endif

/// Stored rows are k: copies each row's stretch of lanes, and asks for the stretch that the next panel needs.
GEMM_INLINE void pack_columns(const gemm_operand *x, ptrdiff_t lane0, ptrdiff_t lanes, ptrdiff_t width, ptrdiff_t k0,
                              ptrdiff_t k, float *dst, const apus_dtype type)
{
    const ptrdiff_t size = type == APUS_BF16 ? 2 : 4;
    for (ptrdiff_t p = 0; p < k; p += K_UNIT) {
        const char *even = gemm_row(x, k0 + p) + lane0 * size;
        const char *odd = K_UNIT == 2 && p + 1 < k ? gemm_row(x, k0 + p + 1) + lane0 * size : NULL;
        __builtin_prefetch(even + width * size, 0, 2);
        __builtin_prefetch(even + 2 * width * size - 1, 0, 2);
        if (lanes == GEMM_NR && width == GEMM_NR)
            pack_step(even, odd, GEMM_NR, GEMM_NR, dst, type);
        else
            pack_step(even, odd, lanes, width, dst, type);
        dst += width;
    }
}

static void pack(const gemm_operand *x, ptrdiff_t lane0, ptrdiff_t lanes, ptrdiff_t width, ptrdiff_t k0, ptrdiff_t k,
                 float *dst)
{
    if (x->type == APUS_BF16) {
        if (x->lane_is_row)
            pack_rows(x, lane0, lanes, width, k0, k, dst, APUS_BF16);
        else
            pack_columns(x, lane0, lanes, width, k0, k, dst, APUS_BF16);
    } else {
        if (x->lane_is_row)
            pack_rows(x, lane0, lanes, width, k0, k, dst, APUS_F32);
        else
            pack_columns(x, lane0, lanes, width, k0, k, dst, APUS_F32);
    }
}
