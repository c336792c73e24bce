#include "gemm_blocking.h"

enum {
    /// Steps up to which a tile waits longer for its C than it computes.
    FEW_STEPS = 256,
    /// Floats of the packed block of A, which with that of B leaves room for C in the L2 cache.
    C_A_FLOATS = A_FLOATS / 4,
    C_B_FLOATS = A_FLOATS / 2,
    /// Rows up to which bringing B takes longer than computing with it.
    FEW_ROWS = 128,
    /// Steps of B at a time: 128 KiB of an expert of width 512.
    B_STEPS = 64,
    /// Floats of the sums that wait meanwhile.
    B_SUMS = 96 * 1024,
};

static const gemm_ahead nothing = {NULL, 0};

int apus_gemm_streams_c(const apus_gemm_args *g, const gemm_kernel *kernel)
{
    return divide_up(g->k, kernel->k_unit) <= FEW_STEPS && g->c_type == APUS_F32 && g->beta != 0;
}

/// The tiles of `count` rows against packed panels of the columns from `column` to `end`.
static void multiply_row_tile(const apus_gemm_args *g, const gemm_kernel *kernel, ptrdiff_t row, ptrdiff_t count,
                              const float *a, const float *panels, ptrdiff_t column, ptrdiff_t end)
{
    const ptrdiff_t nr = kernel->nr, steps = divide_up(g->k, kernel->k_unit);
    gemm_tile *tile = kernel->tile[count - 1];
    for (; column < end; column += nr, panels += nr * steps) {
        if (end - column >= nr) {
            float *c = (float *)g->c + row * g->ldc + column;
            const gemm_ahead next_columns = {(const char *)(c + nr), g->ldc * 4};
            tile(steps, a, panels, nr, next_columns, GEMM_WHOLE, c, g->ldc, g->alpha, g->beta);
        } else {
            _Alignas(64) float sums[LARGEST_TILE];
            tile(steps, a, panels, nr, nothing, GEMM_WHOLE, sums, nr, 1, 0);
            kernel->finish(g, sums, NULL, 0, row, count, column, end - column, g->beta);
        }
    }
}

void apus_gemm_multiply_streaming_c(const apus_gemm_args *g, const gemm_kernel *kernel, const float *packed_b,
                               float *workspace)
{
    const gemm_operand a = operand_a(g), b = operand_b(g);
    const ptrdiff_t nr = kernel->nr, steps = divide_up(g->k, kernel->k_unit);
    const ptrdiff_t row_blocks = divide_up(g->m, C_A_FLOATS / steps / kernel->mr * kernel->mr);
    const ptrdiff_t columns = packed_b ? g->n : C_B_FLOATS / steps / nr * nr;
    float *a_packed = workspace, *b_packed = workspace + C_A_FLOATS + SPILL;
    for (ptrdiff_t column0 = 0; column0 < g->n; column0 += columns) {
        const ptrdiff_t end = smaller(column0 + columns, g->n);
        if (!packed_b)
            for (ptrdiff_t column = column0; column < end; column += nr)
                kernel->pack(&b, column, smaller(nr, end - column), nr, 0, g->k,
                             b_packed + (column - column0) * steps);
        for (ptrdiff_t r = 0; r < row_blocks; r++) {
            const ptrdiff_t row0 = tile_start(g->m, row_blocks, r), rows = tile_start(g->m, row_blocks, r + 1) - row0;
            const ptrdiff_t tiles = divide_up(rows, kernel->mr);
            pack_a(&a, kernel, row0, rows, 0, g->k, steps, a_packed);
            for (ptrdiff_t t = 0; t < tiles; t++) {
                const ptrdiff_t start = tile_start(rows, tiles, t), count = tile_start(rows, tiles, t + 1) - start;
                multiply_row_tile(g, kernel, row0 + start, count, a_packed + start * steps,
                                  packed_b ? packed_b : b_packed, column0, end);
            }
        }
    }
}

int apus_gemm_streams_b(const apus_gemm_args *g, const gemm_kernel *kernel)
{
    return !g->b_transposed && !g->b_rows && g->b_type == APUS_F32 && g->c_type == APUS_F32 && g->ldb == g->n &&
           g->m <= FEW_ROWS && g->m * round_up(g->n, kernel->nr) <= B_SUMS;
}

/// The lines of the stretch of B after one, shared out over its tiles.
typedef struct stretch {
    const char *from;
    ptrdiff_t line, lines;
} stretch;

/// The `steps` steps of B from `k`, for `askings` tile steps before them. Where these are fewer than the lines, every
/// second line is asked for, and the hardware brings its neighbour.
static stretch foresee(const apus_gemm_args *g, ptrdiff_t k, ptrdiff_t steps, ptrdiff_t askings)
{
    const ptrdiff_t lines = steps * g->ldb * 4 / CACHE_LINE;
    return (stretch){(const char *)((const float *)g->b + k * g->ldb), lines > askings ? 2 * CACHE_LINE : CACHE_LINE,
                     lines};
}

/// The steps from `p` to `p + steps` of a k block of `k` from `k0`: the sums go on, and end in C at its last step.
static void multiply_stretch(const apus_gemm_args *g, const gemm_kernel *kernel, ptrdiff_t k0, ptrdiff_t k, ptrdiff_t p,
                             ptrdiff_t steps, const float *a_packed, float *sums, float *b_packed)
{
    const gemm_operand b = operand_b(g);
    const ptrdiff_t nr = kernel->nr, tiles = divide_up(g->m, kernel->mr), next = k0 + p + steps;
    const stretch ahead = foresee(g, next, smaller(B_STEPS, g->k - next), divide_up(g->n, nr) * tiles * steps);
    ptrdiff_t asked = 0;
    for (ptrdiff_t column = 0; column < g->n; column += nr) {
        const ptrdiff_t columns = smaller(nr, g->n - column);
        const int packs = tiles > IN_PLACE_TILES || columns < nr;
        const float *panel = packs ? b_packed : (const float *)g->b + (k0 + p) * g->ldb + column;
        if (packs)
            kernel->pack(&b, column, columns, nr, k0 + p, steps, b_packed);
        for (ptrdiff_t t = 0; t < tiles; t++, asked += steps * ahead.line) {
            const ptrdiff_t start = tile_start(g->m, tiles, t), count = tile_start(g->m, tiles, t + 1) - start;
            const gemm_ahead lines = {ahead.from + asked, ahead.line};
            float *sum = sums + column * g->m + start * nr;
            kernel->tile[count - 1](steps, a_packed + start * k + p * count, panel, packs ? nr : g->ldb,
                                    asked < ahead.lines * CACHE_LINE ? lines : nothing,
                                    p ? GEMM_CONTINUE : GEMM_WHOLE, sum, nr, 1, 0);
            if (p + steps == k)
                kernel->finish(g, sum, NULL, 0, start, count, column, columns, k0 ? 1 : g->beta);
        }
    }
}

void apus_gemm_multiply_streaming_b(const apus_gemm_args *g, const gemm_kernel *kernel, float *workspace)
{
    const gemm_operand a = operand_a(g);
    const blocking x = choose_blocking(g, kernel);
    float *a_packed = workspace, *sums = workspace + round_up(g->m * x.k_steps + SPILL, 16);
    for (ptrdiff_t k0 = 0; k0 < g->k; k0 += x.k_steps) {
        const ptrdiff_t k = smaller(x.k_steps, g->k - k0);
        pack_a(&a, kernel, 0, g->m, k0, k, k, a_packed);
        for (ptrdiff_t p = 0; p < k; p += B_STEPS)
            multiply_stretch(g, kernel, k0, k, p, smaller(B_STEPS, k - p), a_packed, sums, sums + B_SUMS);
    }
}
