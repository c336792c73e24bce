// Products of one to GEMM_DOT_ROWS rows with B stored n x k, for one instruction set (included after gemm_template.h).
// Such a product waits for memory, so every row of B is read once, in place, and sums run along k.

#if GEMM_WIDTH == 16
#define GEMM_DOT_ROWS 8
#else
#define GEMM_DOT_ROWS 6
#endif

/// Bytes ahead of which B is asked for, as if its rows followed one another: several rows at once are more streams
/// within a page than the hardware foresees.
#define GEMM_DOT_AHEAD 4096

/// Columns computed together, so that rows x columns sums, the columns and a row fit the registers.
#define GEMM_DOT_MAX_COLUMNS 4
#define GEMM_DOT_COLUMNS(rows) (GEMM_WIDTH == 16 ? ((rows) > 4 ? 3 : 4) : (rows) > 2 ? 2 : 4)

GEMM_INLINE vec dot_load(const char *row, ptrdiff_t i, const apus_dtype type)
{
    return type == APUS_BF16 ? load_bf16((const apus_bf16 *)row + i) : load((const float *)row + i);
}

GEMM_INLINE float vec_sum(vec x)
{
    float lanes[GEMM_WIDTH];
    store(lanes, x);
#pragma clang loop unroll(full)
    for (int half = GEMM_WIDTH / 2; half > 0; half /= 2)
#pragma clang loop unroll(full)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

GEMM_INLINE void dot_rows(const apus_gemm_args *g, const int m, const apus_dtype a_type, const apus_dtype b_type)
{
    const gemm_operand a = {g->a, g->lda, g->a_rows, a_type, 1}, b = {g->b, g->ldb, g->b_rows, b_type, 1};
    const int group = GEMM_DOT_COLUMNS(m);
    const ptrdiff_t k = g->k;
    const int step = group * GEMM_WIDTH * (b_type == APUS_BF16 ? 2 : 4);
    const char *arow[GEMM_DOT_ROWS];
    for (int i = 0; i < m; i++)
        arow[i] = gemm_row(&a, i);
    for (ptrdiff_t j = 0; j < g->n; j += group) {
        const char *brow[GEMM_DOT_MAX_COLUMNS];
        const ptrdiff_t columns = g->n - j < group ? g->n - j : group;
        for (int c = 0; c < group; c++)
            brow[c] = gemm_row(&b, j + (c < columns ? c : columns - 1));
        vec acc[GEMM_DOT_ROWS][GEMM_DOT_MAX_COLUMNS];
#pragma clang loop unroll(full)
        for (int i = 0; i < m; i++)
#pragma clang loop unroll(full)
            for (int c = 0; c < group; c++)
                acc[i][c] = (vec)0.0f;
        ptrdiff_t p = 0;
        const char *ahead = brow[0] + GEMM_DOT_AHEAD;
        for (; p + GEMM_WIDTH <= k; p += GEMM_WIDTH, ahead += step) {
            vec bp[GEMM_DOT_MAX_COLUMNS];
#pragma clang loop unroll(full)
            for (int line = 0; line < step; line += CACHE_LINE)
                __builtin_prefetch(ahead + line);
#pragma clang loop unroll(full)
            for (int c = 0; c < group; c++)
                bp[c] = dot_load(brow[c], p, b_type);
#pragma clang loop unroll(full)
            for (int i = 0; i < m; i++) {
                vec ap = dot_load(arow[i], p, a_type);
#pragma clang loop unroll(full)
                for (int c = 0; c < group; c++)
                    acc[i][c] = GEMM_FMA(acc[i][c], ap, bp[c]);
            }
        }
        for (int i = 0; i < m; i++) {
            for (ptrdiff_t c = 0; c < columns; c++) {
                float sum = vec_sum(acc[i][c]);
                for (ptrdiff_t q = p; q < k; q++)
                    sum += gemm_load(arow[i], q, a_type) * gemm_load(brow[c], q, b_type);
                gemm_store(g->c, i * g->ldc + j + c, g->c_type, sum, g->alpha, g->beta);
            }
        }
    }
}

GEMM_INLINE void dot_types(const apus_gemm_args *g, const int m)
{
    if (g->b_type == APUS_BF16) {
        if (g->a_type == APUS_BF16)
            dot_rows(g, m, APUS_BF16, APUS_BF16);
        else
            dot_rows(g, m, APUS_F32, APUS_BF16);
    } else {
        if (g->a_type == APUS_BF16)
            dot_rows(g, m, APUS_BF16, APUS_F32);
        else
            dot_rows(g, m, APUS_F32, APUS_F32);
    }
}

static void dot(const apus_gemm_args *g)
{
    switch (g->m) {
    case 1:
        return dot_types(g, 1);
    case 2:
        return dot_types(g, 2);
    case 3:
        return dot_types(g, 3);
    case 4:
        return dot_types(g, 4);
    case 5:
        return dot_types(g, 5);
#if GEMM_DOT_ROWS == 6
    default:
        return dot_types(g, 6);
#else
    case 6:
        return dot_types(g, 6);
    case 7:
        return dot_types(g, 7);
    default:
        return dot_types(g, 8);
#endif
    }
}
