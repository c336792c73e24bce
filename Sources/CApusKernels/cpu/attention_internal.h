// What the attention entry points share with the kernels compiled per instruction set.
#ifndef APUS_ATTENTION_INTERNAL_H
#define APUS_ATTENTION_INTERNAL_H

#include "apus_attention.h"

enum {
    /// Keys per tile. Tiles start at multiples of this from key 0, which makes a row's arithmetic independent of its
    /// batch.
    APUS_ATTENTION_KEYS = 64,
    /// Query rows (tokens x heads of one key head) per tile: enough to pay for packing a key tile, few enough for the
    /// L2 cache.
    APUS_ATTENTION_ROWS = 96,
    /// Widest vector of any instruction set, in floats; packed rows are padded to it.
    APUS_ATTENTION_LANES = 16,
};

/// Arguments of one forward call; the workspace is aligned to 64 bytes.
typedef struct apus_attention_forward_call {
    const apus_attention_problem *problem;
    const apus_kv_view *kv;
    const apus_attention_output *out;
    float *lse;
    float *workspace;
} apus_attention_forward_call;

/// Arguments of one backward call; the workspace is aligned to 64 bytes.
typedef struct apus_attention_backward_call {
    const apus_attention_problem *problem;
    const apus_kv_view *kv;
    const apus_attention_rows *out, *dout;
    const float *lse;
    const apus_attention_output *dq, *dk, *dv;
    float *workspace;
} apus_attention_backward_call;

/// Query tokens [token_begin, token_end) of the batch, all of one sequence, for the query heads of one key head.
typedef void apus_attention_forward_unit(
    const apus_attention_forward_call *call, ptrdiff_t sequence, ptrdiff_t key_head, ptrdiff_t token_begin,
    ptrdiff_t token_end);
/// One sequence and key head.
typedef void apus_attention_backward_unit(
    const apus_attention_backward_call *call, ptrdiff_t sequence, ptrdiff_t key_head);

apus_attention_forward_unit apus_attention_forward_unit_portable;
apus_attention_backward_unit apus_attention_backward_unit_portable;
#if defined(__x86_64__)
apus_attention_forward_unit apus_attention_forward_unit_avx2, apus_attention_forward_unit_avx512;
apus_attention_backward_unit apus_attention_backward_unit_avx2, apus_attention_backward_unit_avx512;
#endif

static inline ptrdiff_t apus_attention_round_up(ptrdiff_t n, ptrdiff_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/// Floats per packed row of H elements.
static inline ptrdiff_t apus_attention_padded_width(const apus_attention_problem *p) {
    return apus_attention_round_up(p->head_width, APUS_ATTENTION_LANES);
}

/// Query tokens per forward unit: the heads that share a key head are rows of the same tile.
static inline ptrdiff_t apus_attention_tile_tokens(const apus_attention_problem *p) {
    ptrdiff_t group = p->query_heads / p->key_heads;
    return group >= APUS_ATTENTION_ROWS ? 1 : APUS_ATTENTION_ROWS / group;
}

/// Most query rows of a forward unit.
static inline ptrdiff_t apus_attention_tile_rows(const apus_attention_problem *p) {
    return apus_attention_tile_tokens(p) * (p->query_heads / p->key_heads);
}

/// Number of keys of a sequence.
static inline ptrdiff_t apus_attention_key_count(const apus_kv_view *kv, ptrdiff_t sequence) {
    return kv->block_table ? kv->kv_lengths[sequence] : kv->cu_k[sequence + 1] - kv->cu_k[sequence];
}

/// Half-open range of the keys that query token `token` (of the batch) sees, counted from key 0 of its sequence.
static inline void apus_attention_visible(
    const apus_attention_problem *p, ptrdiff_t sequence, ptrdiff_t token, ptrdiff_t key_count, int32_t *begin,
    int32_t *end) {
    ptrdiff_t last = key_count, first = 0;
    if (p->mask == APUS_ATTENTION_MASK_CAUSAL) last = key_count - (p->cu_q[sequence + 1] - token) + 1;
    if (p->window > 0 && last > p->window) first = last - p->window;
    if (p->first_key && p->first_key[token] > first) first = p->first_key[token];
    if (last < 0) last = 0;
    *begin = (int32_t)(first < last ? first : last);
    *end = (int32_t)last;
}

#endif
