#ifndef APUS_ROWS_H
#define APUS_ROWS_H

// Moving rows: dispatch, combine and embedding. T tokens, K choices a token, R routed rows, D width, V vocabulary.
//
// Slot s = t * K + k is choice k of token t. A slot's row, or a row's source, of -1 means none.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// y[r, :] = scale[r] * x[index[r], :] for `rows` rows; index -1 gives a zero row; `scale` (rows) may be null for one.
/// Embedding and dispatch are this op; so is the padding of a capacity or block layout. y must not overlap x.
void apus_gather_rows_f32(
    float *y, ptrdiff_t y_stride, const float *x, ptrdiff_t x_stride, const int32_t *index, const float *scale,
    ptrdiff_t rows, ptrdiff_t width);
void apus_gather_rows_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, const apus_bf16 *x, ptrdiff_t x_stride, const int32_t *index, const float *scale,
    ptrdiff_t rows, ptrdiff_t width);

/// y[t, :] (= or, with `accumulate`, +=) sum over k in order of weight[t, k] * rows[slot_to_row[t * K + k], :], for
/// `tokens` tokens.
///
/// `weight` (T, K) may be null for ones: then this is the adjoint of a gather (dx[t] from the rows its copies went
/// to). Rows of -1 are skipped. `y`, `slot_to_row` and `weight` are offset to the first token; `rows` is the whole
/// (R, D) matrix.
void apus_combine_forward_f32(
    float *y, ptrdiff_t y_stride, const float *rows, ptrdiff_t rows_stride, const int32_t *slot_to_row,
    const float *weight, ptrdiff_t tokens, ptrdiff_t choices, ptrdiff_t width, bool accumulate);
void apus_combine_forward_bf16(
    apus_bf16 *y, ptrdiff_t y_stride, const apus_bf16 *rows, ptrdiff_t rows_stride, const int32_t *slot_to_row,
    const float *weight, ptrdiff_t tokens, ptrdiff_t choices, ptrdiff_t width, bool accumulate);

/// The gradient of combine: drows[slot_to_row[t * K + k], :] = weight[t, k] * dy[t, :] and
/// dweight[t, k] = dot(rows[slot_to_row[t * K + k], :], dy[t, :]), 0 where the slot has no row.
///
/// - `weight` may be null for ones; `dweight` may be null, and `rows` is not read then; `drows` may be null.
/// - drows may be the same memory as rows with the same stride. Rows that no slot names are left as they are.
void apus_combine_backward_f32(
    float *drows, ptrdiff_t drows_stride, float *dweight, const float *dy, ptrdiff_t dy_stride, const float *rows,
    ptrdiff_t rows_stride, const int32_t *slot_to_row, const float *weight, ptrdiff_t tokens, ptrdiff_t choices,
    ptrdiff_t width);
void apus_combine_backward_bf16(
    apus_bf16 *drows, ptrdiff_t drows_stride, float *dweight, const apus_bf16 *dy, ptrdiff_t dy_stride,
    const apus_bf16 *rows, ptrdiff_t rows_stride, const int32_t *slot_to_row, const float *weight, ptrdiff_t tokens,
    ptrdiff_t choices, ptrdiff_t width);

/// dweight[token[r], :] (f32) += dy[r, :] for every row r, in row order, whose token lies in first_token ..<
/// last_token.
///
/// `dweight` is the whole (V, D) gradient. Threads split the vocabulary, not the rows: each scans all rows, and the
/// sum of a token has one order for any number of threads. Tokens outside the range (also negative ones) are skipped.
void apus_embedding_backward_f32(
    float *dweight, ptrdiff_t dweight_stride, const float *dy, ptrdiff_t dy_stride, const int32_t *tokens,
    ptrdiff_t rows, ptrdiff_t width, int32_t first_token, int32_t last_token);
void apus_embedding_backward_bf16(
    float *dweight, ptrdiff_t dweight_stride, const apus_bf16 *dy, ptrdiff_t dy_stride, const int32_t *tokens,
    ptrdiff_t rows, ptrdiff_t width, int32_t first_token, int32_t last_token);

#endif
