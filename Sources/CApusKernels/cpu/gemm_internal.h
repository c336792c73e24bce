#ifndef APUS_GEMM_INTERNAL_H
#define APUS_GEMM_INTERNAL_H

#include "apus_gemm.h"

/// Bytes that memory brings at a time.
enum { CACHE_LINE = 64 };

/// Cache lines, `step` bytes apart, that will be needed soon; NULL for none. Asked for one by one, memory brings them
/// while the processor computes; asked for at once, they hold it up.
typedef struct gemm_ahead {
    const char *from;
    ptrdiff_t step;
} gemm_ahead;

/// A stored operand seen as lanes (rows of op(A), or columns of op(B)) times k.
typedef struct gemm_operand {
    const void *data;
    ptrdiff_t stride;
    /// Optional gather over stored rows.
    const int32_t *rows;
    apus_dtype type;
    /// A stored row is a lane (k runs along it); otherwise a stored row is one k.
    int lane_is_row;
} gemm_operand;

/// What becomes of a tile's C.
typedef enum gemm_start {
    /// c = alpha * a b + beta * c.
    GEMM_WHOLE,
    /// Sums begin with c, as if the steps before it were of this product: every element is summed in one order however
    /// its steps are cut.
    GEMM_CONTINUE,
} gemm_start;

/// Computes one tile c[mr][nr] from a packed panel a[steps][mr] and nr columns of b whose steps are `b_step` apart: nr
/// in a packed panel, the stored stride where B is read in place. At each step it asks for a cache line of `ahead`.
typedef void gemm_tile(ptrdiff_t steps, const float *a, const float *b, ptrdiff_t b_step, gemm_ahead ahead,
                       gemm_start start, float *c, ptrdiff_t ldc, float alpha, float beta);

/// C = alpha * (sums + partial) + beta * C for a tile that its caller keeps in sums[rows][nr]: bf16 results and the
/// last columns. `partial` may be NULL.
typedef void gemm_finish(const apus_gemm_args *args, const float *sums, const float *partial, ptrdiff_t partial_stride,
                         ptrdiff_t row, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, float beta);

/// Copies `lanes` lanes from `lane0` and k in [k0, k0 + k) to dst[step][width]. A step holds `k_unit` values of k.
/// May write up to 16 floats past the end. Columns from `lanes` to `width` get finite, meaningless values.
typedef void gemm_pack(const gemm_operand *x, ptrdiff_t lane0, ptrdiff_t lanes, ptrdiff_t width, ptrdiff_t k0,
                       ptrdiff_t k, float *dst);

/// C (m x n) for few rows and B stored n x k: each row of B is read once, in place.
typedef void gemm_dot(const apus_gemm_args *args);

/// The kernels of one instruction set. A packed step of a lane takes four bytes: one f32, or two bf16 along k.
typedef struct gemm_kernel {
    ptrdiff_t mr, nr, k_unit;
    gemm_pack *pack;
    /// tile[i] computes i + 1 rows, i < mr.
    gemm_tile *const *tile;
    gemm_finish *finish;
    /// For m up to `dot_rows`, which is 0 where the instruction set has none.
    ptrdiff_t dot_rows;
    gemm_dot *dot;
} gemm_kernel;

extern const gemm_kernel apus_gemm_portable;
#if defined(__x86_64__)
extern const gemm_kernel apus_gemm_avx2;
extern const gemm_kernel apus_gemm_avx512;
extern const gemm_kernel apus_gemm_avx512_bf16;
#endif

static inline float gemm_from_bf16(apus_bf16 x)
{
    return __builtin_bit_cast(float, (uint32_t)x << 16);
}

/// Rounds to nearest even; a NaN stays a NaN.
static inline apus_bf16 gemm_to_bf16(float x)
{
    uint32_t bits = __builtin_bit_cast(uint32_t, x);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (apus_bf16)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

/// The address of stored row `row`.
static inline const char *gemm_row(const gemm_operand *x, ptrdiff_t row)
{
    ptrdiff_t stored = x->rows ? x->rows[row] : row;
    return (const char *)x->data + stored * x->stride * (x->type == APUS_BF16 ? 2 : 4);
}

static inline float gemm_load(const char *row, ptrdiff_t i, apus_dtype type)
{
    return type == APUS_BF16 ? gemm_from_bf16(((const apus_bf16 *)row)[i]) : ((const float *)row)[i];
}

/// Element i of C = alpha * sum + beta * C. Not contracted, as in the tiles.
static inline void gemm_store(void *c, ptrdiff_t i, apus_dtype type, float sum, float alpha, float beta)
{
#pragma clang fp contract(off)
    float x = alpha * sum;
    if (type == APUS_BF16) {
        apus_bf16 *p = (apus_bf16 *)c + i;
        *p = gemm_to_bf16(beta != 0 ? x + beta * gemm_from_bf16(*p) : x);
    } else {
        float *p = (float *)c + i;
        *p = beta != 0 ? x + beta * *p : x;
    }
}

#endif
