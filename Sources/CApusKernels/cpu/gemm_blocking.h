#ifndef APUS_GEMM_BLOCKING_H
#define APUS_GEMM_BLOCKING_H

#include "apus_cpu.h"
#include "gemm_internal.h"

// How a product is cut to fit the caches. The cut of k into blocks depends on k alone, and sums run through a block in
// the order of k: a row's sum has one order, whatever rows are computed beside it and whichever way is chosen.

enum {
    /// Steps of a k block. C is read and written once for each; a panel of B is this times nr floats.
    K_STEPS = 512,
    /// Floats of a packed block of A: 640 KiB, of the 1 MiB of L2 that a core has on the CPUs aimed at.
    A_FLOATS = 160 * 1024,
    /// Columns of a block whose sums wait in f32 while k blocks go by (bf16 results only).
    PARTIAL_COLUMNS = 256,
    /// Row tiles up to which an f32 B stored k x n is read in place.
    IN_PLACE_TILES = 3,
    /// Floats of the largest tile, 14 x 32.
    LARGEST_TILE = 14 * 32,
    /// Packing may write this many floats past the end.
    SPILL = 16,
};

typedef struct blocking {
    ptrdiff_t k_steps, k_blocks;
    ptrdiff_t rows, columns;
    /// Offsets into the workspace, in floats.
    ptrdiff_t b_at, partial_at, end;
} blocking;

static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

static inline ptrdiff_t divide_up(ptrdiff_t a, ptrdiff_t b)
{
    return (a + b - 1) / b;
}

static inline ptrdiff_t round_up(ptrdiff_t a, ptrdiff_t unit)
{
    return divide_up(a, unit) * unit;
}

static inline const gemm_kernel *choose_kernel(apus_dtype a_type, apus_dtype b_type)
{
#if defined(__x86_64__)
    uint32_t features = apus_cpu_features();
    // Processors with AMX leave bf16 to it: their vector instruction for bf16 is slower than two for f32.
    if ((features & APUS_CPU_AVX512_BF16) && !(features & APUS_CPU_AMX_BF16) && a_type == APUS_BF16 &&
        b_type == APUS_BF16)
        return &apus_gemm_avx512_bf16;
    if (features & APUS_CPU_AVX512)
        return &apus_gemm_avx512;
    if (features & APUS_CPU_AVX2)
        return &apus_gemm_avx2;
#endif
    (void)a_type, (void)b_type;
    return &apus_gemm_portable;
}

static inline blocking choose_blocking(const apus_gemm_args *g, const gemm_kernel *kernel)
{
    blocking x;
    ptrdiff_t steps = divide_up(g->k, kernel->k_unit);
    x.k_blocks = divide_up(steps, K_STEPS);
    x.k_steps = x.k_blocks ? round_up(divide_up(steps, x.k_blocks), 16) : 0;
    x.rows = smaller(g->m, x.k_steps ? A_FLOATS / x.k_steps / kernel->mr * kernel->mr : g->m);
    x.columns = g->n;
    ptrdiff_t partial = 0;
    if (g->c_type == APUS_BF16 && x.k_blocks > 1) {
        x.columns = smaller(g->n, PARTIAL_COLUMNS);
        partial = x.rows * round_up(x.columns, kernel->nr);
    }
    x.b_at = round_up(x.rows * x.k_steps + SPILL, 16);
    x.partial_at = x.b_at + round_up(kernel->nr * x.k_steps + SPILL, 16);
    x.end = x.partial_at + partial;
    return x;
}

/// Rows of tile `tile` of `tiles` that share `rows`: even shares keep every tile near full speed.
static inline ptrdiff_t tile_start(ptrdiff_t rows, ptrdiff_t tiles, ptrdiff_t tile)
{
    ptrdiff_t share = rows / tiles, longer = rows % tiles;
    return tile * share + smaller(tile, longer);
}

/// Packs a block of rows of A tile by tile. Where a stored row is one k, few k at a time go to all tiles, so that a
/// cache line serves every tile that it reaches into.
static inline void pack_a(const gemm_operand *a, const gemm_kernel *kernel, ptrdiff_t row0, ptrdiff_t rows,
                          ptrdiff_t k0, ptrdiff_t k, ptrdiff_t steps, float *packed)
{
    const ptrdiff_t tiles = divide_up(rows, kernel->mr), chunk = a->lane_is_row ? k : 8;
    for (ptrdiff_t p = 0; p < k; p += chunk) {
        for (ptrdiff_t t = 0; t < tiles; t++) {
            ptrdiff_t start = tile_start(rows, tiles, t), count = tile_start(rows, tiles, t + 1) - start;
            kernel->pack(a, row0 + start, count, count, k0 + p, smaller(chunk, k - p),
                         packed + start * steps + p / kernel->k_unit * count);
        }
    }
}

static inline gemm_operand operand_a(const apus_gemm_args *g)
{
    return (gemm_operand){g->a, g->lda, g->a_rows, g->a_type, !g->a_transposed};
}

static inline gemm_operand operand_b(const apus_gemm_args *g)
{
    return (gemm_operand){g->b, g->ldb, g->b_rows, g->b_type, g->b_transposed};
}

/// Products whose time goes into bringing C: few steps, added to a C in f32. Row tiles run from end to end of C, which
/// is how memory brings it fastest. `packed_b` may be NULL.
int apus_gemm_streams_c(const apus_gemm_args *args, const gemm_kernel *kernel);
void apus_gemm_multiply_streaming_c(const apus_gemm_args *args, const gemm_kernel *kernel, const float *packed_b,
                               float *workspace);

/// Products whose time goes into bringing B, where its stored order is not that of its panels: few rows, B in f32 and
/// stored k x n. Few steps of all columns are computed at a time.
int apus_gemm_streams_b(const apus_gemm_args *args, const gemm_kernel *kernel);
void apus_gemm_multiply_streaming_b(const apus_gemm_args *args, const gemm_kernel *kernel, float *workspace);

#endif
