// Entry points of attention: checks, workspace sizes, enumeration of units and choice of the instruction set.
#include "attention_internal.h"

#include "apus_cpu.h"

static const char *check_rows(const apus_attention_rows *rows) {
    if (!rows->data) return "data of q, k or v is NULL; pass the address of element (0, 0, 0)";
    if (rows->dtype != APUS_F32 && rows->dtype != APUS_BF16) return "dtype of q, k or v is not f32 or bf16";
    return NULL;
}

static const char *check_lengths(const apus_attention_problem *p, const apus_kv_view *kv) {
    for (ptrdiff_t s = 0; s < p->sequences; s++) {
        if (p->cu_q[s + 1] < p->cu_q[s]) return "cu_q decreases; it must be cumulative query lengths";
        if (apus_attention_key_count(kv, s) < 0) return "cu_k decreases or a kv length is negative";
    }
    return NULL;
}

const char *apus_attention_check(const apus_attention_problem *p, const apus_kv_view *kv) {
    if (p->sequences < 0) return "number of sequences is negative";
    if (p->head_width < 1 || p->head_width > 256) return "head width is outside 1 ... 256";
    if (p->key_heads < 1 || p->query_heads < p->key_heads || p->query_heads % p->key_heads != 0) {
        return "number of query heads is not a positive multiple of the number of key heads";
    }
    if (p->mask != APUS_ATTENTION_MASK_NONE && p->mask != APUS_ATTENTION_MASK_CAUSAL) {
        return "mask is neither none nor causal";
    }
    if (p->window < 0) return "window is negative; 0 means no window";
    if (!p->cu_q) return "cu_q is NULL; pass sequences + 1 cumulative query lengths";
    if (kv->block_table) {
        if (!kv->kv_lengths) return "kv_lengths is NULL; paged keys need one length per sequence";
        if (kv->block_size < 1) return "block size is below 1";
    } else if (!kv->cu_k) {
        return "cu_k is NULL; contiguous keys need sequences + 1 cumulative key lengths";
    }
    const char *problem = check_lengths(p, kv);
    if (!problem) problem = check_rows(&p->q);
    if (!problem) problem = check_rows(&kv->k);
    if (!problem) problem = check_rows(&kv->v);
    return problem;
}

static void *align(void *workspace) {
    return (void *)(((uintptr_t)workspace + 63) & ~(uintptr_t)63);
}

static ptrdiff_t sequence_tiles(const apus_attention_problem *p, ptrdiff_t sequence) {
    const ptrdiff_t tokens = apus_attention_tile_tokens(p);
    return (p->cu_q[sequence + 1] - p->cu_q[sequence] + tokens - 1) / tokens;
}

ptrdiff_t apus_attention_forward_units(const apus_attention_problem *p) {
    ptrdiff_t tiles = 0;
    for (ptrdiff_t s = 0; s < p->sequences; s++) tiles += sequence_tiles(p, s);
    return tiles * p->key_heads;
}

size_t apus_attention_forward_workspace(const apus_attention_problem *p) {
    const ptrdiff_t width = apus_attention_padded_width(p), rows = apus_attention_tile_rows(p);
    // Keys and values; queries and sums; norms; scores of one panel; maximum, begin and end of each row.
    const ptrdiff_t floats = 2 * APUS_ATTENTION_KEYS * width + 2 * rows * width + rows * APUS_ATTENTION_LANES
        + 12 * APUS_ATTENTION_KEYS + 3 * rows;
    return (size_t)floats * sizeof(float) + 64;
}

void apus_attention_forward(
    const apus_attention_problem *p, const apus_kv_view *kv, const apus_attention_output *out, float *lse,
    void *workspace,
    ptrdiff_t unit_begin, ptrdiff_t unit_end) {
    apus_attention_forward_unit *run = apus_attention_forward_unit_portable;
#if defined(__x86_64__)
    const uint32_t features = apus_cpu_features();
    if (features & APUS_CPU_AVX2) run = apus_attention_forward_unit_avx2;
    if (features & APUS_CPU_AVX512) run = apus_attention_forward_unit_avx512;
#endif
    const apus_attention_forward_call call = {
        .problem = p, .kv = kv, .out = out, .lse = lse, .workspace = align(workspace)};
    const ptrdiff_t tokens = apus_attention_tile_tokens(p);
    ptrdiff_t unit = 0;
    for (ptrdiff_t s = 0; s < p->sequences && unit < unit_end; s++) {
        const ptrdiff_t tiles = sequence_tiles(p, s), units = tiles * p->key_heads;
        // Last tiles first: under a causal mask they have the most keys, and long units that start early balance the
        // threads.
        for (ptrdiff_t i = unit_begin > unit ? unit_begin - unit : 0; i < units && unit + i < unit_end; i++) {
            const ptrdiff_t begin = p->cu_q[s] + (tiles - 1 - i / p->key_heads) * tokens, end = begin + tokens;
            run(&call, s, i % p->key_heads, begin, end < p->cu_q[s + 1] ? end : p->cu_q[s + 1]);
        }
        unit += units;
    }
}

ptrdiff_t apus_attention_backward_units(const apus_attention_problem *p) {
    return p->sequences * p->key_heads;
}

size_t apus_attention_backward_workspace(const apus_attention_problem *p, const apus_kv_view *kv) {
    ptrdiff_t keys = 0;
    for (ptrdiff_t s = 0; s < p->sequences; s++) {
        const ptrdiff_t count = apus_attention_key_count(kv, s);
        if (count > keys) keys = count;
    }
    const ptrdiff_t width = apus_attention_padded_width(p);
    // Keys both ways, values, dk, dv; queries, dout, dq; p and ds; lse, delta, begin and end of each row.
    const ptrdiff_t floats = 5 * apus_attention_round_up(keys, APUS_ATTENTION_KEYS) * width
        + 3 * APUS_ATTENTION_ROWS * width
        + 2 * APUS_ATTENTION_ROWS * APUS_ATTENTION_KEYS + 4 * APUS_ATTENTION_ROWS;
    return (size_t)floats * sizeof(float) + 64;
}

void apus_attention_backward(
    const apus_attention_problem *p, const apus_kv_view *kv, const apus_attention_rows *out, const float *lse,
    const apus_attention_rows *dout, const apus_attention_output *dq, const apus_attention_output *dk,
    const apus_attention_output *dv, void *workspace, ptrdiff_t unit_begin, ptrdiff_t unit_end) {
    apus_attention_backward_unit *run = apus_attention_backward_unit_portable;
#if defined(__x86_64__)
    const uint32_t features = apus_cpu_features();
    if (features & APUS_CPU_AVX2) run = apus_attention_backward_unit_avx2;
    if (features & APUS_CPU_AVX512) run = apus_attention_backward_unit_avx512;
#endif
    const apus_attention_backward_call call = {
        .problem = p, .kv = kv, .out = out, .dout = dout, .lse = lse, .dq = dq, .dk = dk, .dv = dv,
        .workspace = align(workspace)};
    for (ptrdiff_t unit = unit_begin; unit < unit_end; unit++) run(&call, unit / p->key_heads, unit % p->key_heads);
}
