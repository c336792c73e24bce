// Scaled dot-product attention over ragged sequences, forward and backward.
//
// Shape letters: T query tokens of the batch, S sequences, Hq query heads, Hk key/value heads (Hq is a multiple of Hk),
// G = Hq / Hk query heads that share one key/value head, H head width. Strides are in elements; the last axis (H) is
// contiguous.
//
// Work is split into units that may run at the same time in any order, each thread with a workspace of its own:
//   forward unit  = (sequence, key head, tile of query tokens)
//   backward unit = (sequence, key head)
// Every output element is written by exactly one unit, so results do not depend on the number of threads.
#ifndef APUS_ATTENTION_H
#define APUS_ATTENTION_H

#include "apus_types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Which keys a query sees before `window` and `first_key` narrow the range.
typedef enum apus_attention_mask {
    /// All keys of its sequence. Cross attention is this mask with keys of another sequence.
    APUS_ATTENTION_MASK_NONE = 0,
    /// Query i of a sequence with q queries and k keys sees keys 0 ... k - q + i (the queries are the last q
    /// positions).
    APUS_ATTENTION_MASK_CAUSAL = 1,
} apus_attention_mask;

/// A read-only (tokens, heads, H) array seen through strides, so that it can be a slice of a fused projection.
typedef struct apus_attention_rows {
    /// Element (0, 0, 0).
    const void *data;
    /// Elements from one token to the next.
    ptrdiff_t token_stride;
    /// Elements from one head to the next.
    ptrdiff_t head_stride;
    /// APUS_F32 or APUS_BF16.
    apus_dtype dtype;
} apus_attention_rows;

/// A writable (tokens, heads, H) array seen through strides; what is written replaces the old contents.
typedef struct apus_attention_output {
    /// Element (0, 0, 0).
    void *data;
    /// Elements from one token to the next.
    ptrdiff_t token_stride;
    /// Elements from one head to the next.
    ptrdiff_t head_stride;
    /// APUS_F32 or APUS_BF16.
    apus_dtype dtype;
} apus_attention_output;

/// Sizes, mask and queries of one attention call; shared by forward and backward.
typedef struct apus_attention_problem {
    /// S.
    ptrdiff_t sequences;
    /// Hq, a multiple of `key_heads`.
    ptrdiff_t query_heads;
    /// Hk.
    ptrdiff_t key_heads;
    /// H, 1 ... 256.
    ptrdiff_t head_width;
    /// Factor on the dot products before the softmax, usually 1 / sqrt(H).
    float scale;
    /// Visible keys.
    apus_attention_mask mask;
    /// 0, or: of the keys that `mask` shows, a query sees only the last `window`.
    ptrdiff_t window;
    /// (S + 1) cumulative query lengths: sequence s holds query tokens cu_q[s] ..< cu_q[s + 1].
    const int32_t *cu_q;
    /// (T) first visible key of each query token, counted from key 0 of its sequence; NULL means 0. Expresses document
    /// boundaries of a packed sequence.
    const int32_t *first_key;
    /// (T, Hq, H) queries.
    apus_attention_rows q;
} apus_attention_problem;

/// Keys and values of all sequences: contiguous (`block_table` NULL) or in blocks of a shared pool.
///
/// Contiguous: key j of sequence s is token cu_k[s] + j of `k` and `v`.
/// Paged: with b = block_table[s * block_table_stride + j / block_size], key j of sequence s starts at
/// `data + b * block_stride + (j % block_size) * token_stride + head * head_stride`. Blocks laid out (heads, tokens, H)
/// decode about twice as fast as (tokens, heads, H), where the rows of one head lie on different pages.
typedef struct apus_kv_view {
    /// (tokens, Hk, H) keys; paged: the pool's first block.
    apus_attention_rows k;
    /// (tokens, Hk, H) values; paged: the pool's first block.
    apus_attention_rows v;
    /// (S + 1) cumulative key lengths; contiguous only.
    const int32_t *cu_k;
    /// (S, block_table_stride) block numbers; NULL means contiguous.
    const int32_t *block_table;
    /// Entries from one sequence's row of `block_table` to the next.
    ptrdiff_t block_table_stride;
    /// (S) number of keys per sequence; paged only.
    const int32_t *kv_lengths;
    /// Tokens per block; paged only.
    ptrdiff_t block_size;
    /// Elements from one key block to the next; paged only.
    ptrdiff_t k_block_stride;
    /// Elements from one value block to the next; paged only.
    ptrdiff_t v_block_stride;
} apus_kv_view;

/// Says what is wrong with a call as a static English text, or returns NULL when the call is sound. Reads `cu_q`,
/// `cu_k`, `kv_lengths`, not the tensors. The functions below assume it returned NULL.
const char *apus_attention_check(const apus_attention_problem *problem, const apus_kv_view *kv);

/// Number of forward units of a call. Of one sequence, the units with the most keys come first.
ptrdiff_t apus_attention_forward_units(const apus_attention_problem *problem);

/// Bytes of workspace one thread needs in `apus_attention_forward`; depends on Hq, Hk and H only.
size_t apus_attention_forward_workspace(const apus_attention_problem *problem);

/// Runs forward units `unit_begin ..< unit_end`: out = softmax(scale * q k^T, over visible keys) v.
///
/// A query row's result is the same to the bit whatever the other rows of the batch, however many of its sequence's
/// queries are computed at once, and wherever its keys lie (contiguous or paged, any block size): every row walks key
/// tiles of 64 that start at multiples of 64 from key 0 with the same arithmetic (online softmax: Milakov and
/// Gimelshein 2018; Dao et al. 2022). Keys and values that lie between a tile's first and last visible key must be
/// finite.
///
/// - out: (T, Hq, H). Rows with no visible key are zero.
/// - lse: (T, Hq) contiguous, natural logarithm of the sum of exponentials, -inf with no visible key; NULL if not
///   wanted.
/// - workspace: `apus_attention_forward_workspace` bytes, any alignment.
void apus_attention_forward(
    const apus_attention_problem *problem, const apus_kv_view *kv, const apus_attention_output *out, float *lse,
    void *workspace,
    ptrdiff_t unit_begin, ptrdiff_t unit_end);

/// Number of backward units of a call: S * Hk.
ptrdiff_t apus_attention_backward_units(const apus_attention_problem *problem);

/// Bytes of workspace one thread needs in `apus_attention_backward`; grows with the longest key sequence.
size_t apus_attention_backward_workspace(const apus_attention_problem *problem, const apus_kv_view *kv);

/// Runs backward units `unit_begin ..< unit_end`; contiguous keys and values only. Overwrites dq, dk, dv of its
/// sequence and key head, also where they are zero. Query heads of one key head are summed in a fixed order.
///
/// - out: (T, Hq, H), lse: (T, Hq): what the forward pass returned.
/// - dout: (T, Hq, H) gradient of out.
/// - dq: (T, Hq, H); dk, dv: (keys, Hk, H), with the token numbering of `kv`.
/// - workspace: `apus_attention_backward_workspace` bytes, any alignment.
void apus_attention_backward(
    const apus_attention_problem *problem, const apus_kv_view *kv, const apus_attention_rows *out, const float *lse,
    const apus_attention_rows *dout, const apus_attention_output *dq, const apus_attention_output *dk,
    const apus_attention_output *dv, void *workspace, ptrdiff_t unit_begin, ptrdiff_t unit_end);

#ifdef __cplusplus
}
#endif

#endif
