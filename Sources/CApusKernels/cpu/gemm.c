#include "apus_onednn.h"
#include "gemm_blocking.h"

// The usual way: for each block of rows of A (packed whole, it stays in the L2 cache), for each block of k, B is packed
// one panel of `nr` columns at a time just before the row tiles that use it, so that a packed panel never leaves the
// core.

/// The columns of B that a block of rows is multiplied by.
typedef struct panel {
    const float *b;
    ptrdiff_t b_step, column, columns;
    /// What the next panel will be packed from: lines `next_step` bytes apart, `next_lines` of them, and beside each as
    /// many more as `next_columns` says less one.
    const char *next;
    ptrdiff_t next_step, next_lines, next_columns;
} panel;

/// What tile `t` asks for: its share of the next panel.
static gemm_ahead choose_ahead(const panel *p, ptrdiff_t steps, ptrdiff_t t)
{
    const ptrdiff_t tiles = p->next ? divide_up(p->next_lines, steps) : 0, column = tiles ? t / tiles : 0;
    if (column >= p->next_columns)
        return (gemm_ahead){NULL, 0};
    return (gemm_ahead){p->next + column * CACHE_LINE + t % tiles * steps * p->next_step, p->next_step};
}

/// All row tiles of a block against one panel of B. `partial` points at the block's first row and the panel's column.
static void multiply_panel(const apus_gemm_args *g, const gemm_kernel *kernel, const blocking *x, ptrdiff_t steps,
                           ptrdiff_t k_block, ptrdiff_t row0, ptrdiff_t rows, const float *a, panel p, float *partial)
{
    const ptrdiff_t tiles = divide_up(rows, kernel->mr), nr = kernel->nr, stride = round_up(x->columns, nr);
    const int last = k_block == x->k_blocks - 1;
    const float beta = k_block == 0 || partial ? g->beta : 1;
    const int direct = g->c_type == APUS_F32 && p.columns == nr;
    for (ptrdiff_t t = 0; t < tiles; t++) {
        const ptrdiff_t start = tile_start(rows, tiles, t), count = tile_start(rows, tiles, t + 1) - start;
        gemm_tile *tile = kernel->tile[count - 1];
        const gemm_ahead ahead = choose_ahead(&p, steps, t);
        const float *at = a + start * steps;
        float *part = partial ? partial + start * stride : NULL;
        if (part && !last) {
            tile(steps, at, p.b, p.b_step, ahead, GEMM_WHOLE, part, stride, 1, k_block == 0 ? 0 : 1);
        } else if (direct) {
            float *c = (float *)g->c + (row0 + start) * g->ldc + p.column;
            tile(steps, at, p.b, p.b_step, ahead, GEMM_WHOLE, c, g->ldc, g->alpha, beta);
        } else {
            _Alignas(64) float sums[LARGEST_TILE];
            tile(steps, at, p.b, p.b_step, ahead, GEMM_WHOLE, sums, nr, 1, 0);
            kernel->finish(g, sums, part, stride, row0 + start, count, p.column, p.columns, beta);
        }
    }
}

/// Where the panel of `column` and `k_block` starts in a packed B: k blocks follow one another, panels within them.
static ptrdiff_t packed_panel(const blocking *x, const gemm_kernel *kernel, ptrdiff_t n, ptrdiff_t total_steps,
                              ptrdiff_t k_block, ptrdiff_t column)
{
    ptrdiff_t before = k_block * x->k_steps;
    return before * round_up(n, kernel->nr) + smaller(x->k_steps, total_steps - before) * column;
}

/// Whether tiles read B where it is: a packed copy pays only if enough tiles use it.
static int reads_b_in_place(const apus_gemm_args *g, const gemm_kernel *kernel)
{
    return !g->b_transposed && !g->b_rows && g->b_type == APUS_F32 && g->m <= IN_PLACE_TILES * kernel->mr;
}

/// Says where the panel after this one comes from, unless its rows are scattered.
static void foresee(panel *p, const gemm_operand *b, ptrdiff_t column, ptrdiff_t columns, ptrdiff_t k0, ptrdiff_t k,
                    ptrdiff_t whole_k)
{
    const ptrdiff_t size = b->type == APUS_BF16 ? 2 : 4;
    if (b->rows)
        return;
    if (!b->lane_is_row) {
        p->next = gemm_row(b, k0) + column * size;
        p->next_step = b->stride * size, p->next_lines = k, p->next_columns = divide_up(columns * size, CACHE_LINE);
    } else if (b->stride == whole_k && k == whole_k) {
        p->next = gemm_row(b, column);
        p->next_step = CACHE_LINE, p->next_lines = divide_up(columns * k * size, CACHE_LINE), p->next_columns = 1;
    }
}

static void multiply(const apus_gemm_args *g, const float *packed_b, float *workspace)
{
    const gemm_kernel *kernel = choose_kernel(g->a_type, g->b_type);
    if (apus_gemm_streams_c(g, kernel)) {
        apus_gemm_multiply_streaming_c(g, kernel, packed_b, workspace);
        return;
    }
    if (!packed_b && apus_gemm_streams_b(g, kernel)) {
        apus_gemm_multiply_streaming_b(g, kernel, workspace);
        return;
    }
    const blocking x = choose_blocking(g, kernel);
    const gemm_operand a = operand_a(g), b = operand_b(g);
    const ptrdiff_t nr = kernel->nr, total_steps = divide_up(g->k, kernel->k_unit);
    float *a_packed = workspace, *b_panel = workspace + x.b_at;
    float *partial = x.end > x.partial_at ? workspace + x.partial_at : NULL;
    const int in_place = !packed_b && reads_b_in_place(g, kernel);
    const ptrdiff_t row_blocks = divide_up(g->m, x.rows);
    for (ptrdiff_t r = 0; r < row_blocks; r++) {
        const ptrdiff_t row0 = tile_start(g->m, row_blocks, r), rows = tile_start(g->m, row_blocks, r + 1) - row0;
        for (ptrdiff_t column0 = 0; column0 < g->n; column0 += x.columns) {
            const ptrdiff_t column_end = smaller(column0 + x.columns, g->n);
            for (ptrdiff_t kb = 0; kb < x.k_blocks; kb++) {
                const ptrdiff_t steps = smaller(x.k_steps, total_steps - kb * x.k_steps);
                const ptrdiff_t k0 = kb * x.k_steps * kernel->k_unit, k = smaller(steps * kernel->k_unit, g->k - k0);
                pack_a(&a, kernel, row0, rows, k0, k, steps, a_packed);
                for (ptrdiff_t column = column0; column < column_end; column += nr) {
                    panel p = {b_panel, nr, column, smaller(nr, column_end - column), NULL, 0, 0, 0};
                    if (packed_b)
                        p.b = packed_b + packed_panel(&x, kernel, g->n, total_steps, kb, column);
                    else if (in_place && p.columns == nr)
                        p.b = (const float *)g->b + k0 * g->ldb + column, p.b_step = g->ldb;
                    else {
                        kernel->pack(&b, column, p.columns, nr, k0, k, b_panel);
                        if (column + nr < column_end)
                            foresee(&p, &b, column + nr, smaller(nr, column_end - column - nr), k0, k, g->k);
                    }
                    multiply_panel(g, kernel, &x, steps, kb, row0, rows, a_packed, p,
                                   partial ? partial + (column - column0) : NULL);
                }
            }
        }
    }
}

static void scale(const apus_gemm_args *g)
{
    for (ptrdiff_t i = 0; i < g->m; i++)
        for (ptrdiff_t j = 0; j < g->n; j++)
            gemm_store(g->c, i * g->ldc + j, g->c_type, 0, 1, g->beta);
}

static int valid(const apus_gemm_args *g, int needs_b)
{
    if (g->m < 0 || g->n < 0 || g->k < 0)
        return 0;
    if (g->m == 0 || g->n == 0)
        return 1;
    if (!g->c || g->ldc < g->n)
        return 0;
    if (g->k == 0)
        return 1;
    if (!g->a || g->lda < (g->a_transposed ? g->m : g->k))
        return 0;
    return !needs_b || (g->b && g->ldb >= (g->b_transposed ? g->k : g->n));
}

static float *align(void *workspace)
{
    return (float *)(((uintptr_t)workspace + 63) & ~(uintptr_t)63);
}

size_t apus_gemm_workspace_max(void)
{
    // Rows times k_steps never exceeds A_FLOATS. Partial sums are largest where k blocks are shortest: half of K_STEPS.
    size_t floats = A_FLOATS + 2 * (SPILL + 16) + 32 * (K_STEPS + 16);
    floats += (size_t)A_FLOATS / (K_STEPS / 2) * PARTIAL_COLUMNS;
    return floats * sizeof(float) + 64;
}

/// The kernel that computes few rows in place, whatever the types, or NULL.
static gemm_dot *choose_dot(const apus_gemm_args *g)
{
    const gemm_kernel *kernel = choose_kernel(APUS_F32, APUS_F32);
    int fits = !g->batch_invariant && !g->a_transposed && g->b_transposed && g->m <= kernel->dot_rows;
    return fits ? kernel->dot : NULL;
}

// In f32 our own kernel is as fast as oneDNN 2.6.3 or faster (`apus bench gemm`, `apus bench grouped`), needs no code
// compiled for each shape, and its parts can be as small as keeps the threads even: a training step takes 0.94 of the
// time (`apus bench train --products own`). In bf16 without avx512_bf16 it is several times as fast. With avx512_bf16
// the rule follows a trial of oneDNN on Zen 4: 180 to 215 GFLOP/s of a peak of 231, our own 150 to 175.
apus_gemm_engine apus_gemm_choose(const apus_gemm_args *g)
{
    if (g->a_type != APUS_BF16 || !(apus_cpu_features() & APUS_CPU_AVX512_BF16) || choose_dot(g) ||
        !apus_onednn_supports(g))
        return APUS_GEMM_OWN;
    // AMX, which oneDNN has and we have not, is several times as fast as anything else: also in pieces.
    const int amx = (apus_cpu_features() & APUS_CPU_AMX_BF16) != 0;
    int faster;
    // An exact number of tokens is cut into powers of two: whole multiples of a large one only.
    // With few steps the time goes into bringing C, which our own kernels do faster.
    if (g->a_transposed)
        faster = g->c_type == APUS_F32 &&
                 (amx ? !apus_gemm_streams_c(g, choose_kernel(g->a_type, g->b_type)) : g->k % 64 == 0);
    else if (g->b_transposed)
        faster = (amx && g->m >= 16) || g->m % 64 == 0;
    else
        faster = amx || g->m > 16;
    return faster && g->m * g->n >= (amx ? 1 << 11 : 1 << 14) ? APUS_GEMM_ONEDNN : APUS_GEMM_OWN;
}

int apus_gemm(const apus_gemm_args *g, apus_gemm_engine engine, void *workspace)
{
    if (!valid(g, 1))
        return APUS_GEMM_INVALID;
    if (engine == APUS_GEMM_ONEDNN && !apus_onednn_supports(g))
        return APUS_GEMM_UNSUPPORTED;
    if (g->m == 0 || g->n == 0)
        return APUS_GEMM_OK;
    if (g->k == 0) {
        scale(g);
        return APUS_GEMM_OK;
    }
    if (engine == APUS_GEMM_ONEDNN)
        return apus_onednn_gemm(g, NULL);
    apus_gemm_args rest;
    if (engine == APUS_GEMM_AUTO && apus_gemm_choose(g) == APUS_GEMM_ONEDNN) {
        if (apus_onednn_gemm(g, &rest) == APUS_GEMM_OK)
            return APUS_GEMM_OK;
        g = &rest;
    }
    gemm_dot *dot = choose_dot(g);
    if (dot) {
        dot(g);
        return APUS_GEMM_OK;
    }
    if (!workspace)
        return APUS_GEMM_INVALID;
    multiply(g, NULL, align(workspace));
    return APUS_GEMM_OK;
}

size_t apus_gemm_packed_b_size(const apus_gemm_args *g)
{
    if (g->n <= 0 || g->k <= 0)
        return 0;
    const gemm_kernel *kernel = choose_kernel(g->a_type, g->b_type);
    return ((size_t)(round_up(g->n, kernel->nr) * divide_up(g->k, kernel->k_unit)) + SPILL) * sizeof(float);
}

int apus_gemm_pack_b_columns(const apus_gemm_args *g, ptrdiff_t first, ptrdiff_t count, void *packed)
{
    const gemm_kernel *kernel = choose_kernel(g->a_type, g->b_type);
    if (g->n < 0 || g->k < 0 || first < 0 || count < 0 || first + count > g->n || first % kernel->nr != 0)
        return APUS_GEMM_INVALID;
    if (count == 0 || g->k == 0)
        return APUS_GEMM_OK;
    if (!packed || !g->b || g->ldb < (g->b_transposed ? g->k : g->n))
        return APUS_GEMM_INVALID;
    const blocking x = choose_blocking(g, kernel);
    const gemm_operand b = operand_b(g);
    const ptrdiff_t total_steps = divide_up(g->k, kernel->k_unit), end = first + count;
    for (ptrdiff_t kb = 0; kb < x.k_blocks; kb++) {
        ptrdiff_t k0 = kb * x.k_steps * kernel->k_unit, k = smaller(x.k_steps * kernel->k_unit, g->k - k0);
        for (ptrdiff_t column = first; column < end; column += kernel->nr)
            kernel->pack(&b, column, smaller(kernel->nr, g->n - column), kernel->nr, k0, k,
                         (float *)packed + packed_panel(&x, kernel, g->n, total_steps, kb, column));
    }
    return APUS_GEMM_OK;
}

int apus_gemm_pack_b(const apus_gemm_args *g, void *packed)
{
    return apus_gemm_pack_b_columns(g, 0, g->n, packed);
}

int apus_gemm_with_packed_b(const apus_gemm_args *g, const void *packed, void *workspace)
{
    if (!valid(g, 0))
        return APUS_GEMM_INVALID;
    if (g->m == 0 || g->n == 0)
        return APUS_GEMM_OK;
    if (g->k == 0) {
        scale(g);
        return APUS_GEMM_OK;
    }
    if (!packed || !workspace)
        return APUS_GEMM_INVALID;
    multiply(g, packed, align(workspace));
    return APUS_GEMM_OK;
}
