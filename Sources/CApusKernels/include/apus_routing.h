#ifndef APUS_ROUTING_H
#define APUS_ROUTING_H

// Routing: choosing experts and ordering slots by expert. T tokens, E experts, K choices per token, R routed rows.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The largest number of experts that `apus_topk_f32` accepts.
#define APUS_TOPK_MAX_EXPERTS 1024

/// Chooses the K highest of E scores in each row: ids and values (rows, K), highest first, ties to the lowest id.
///
/// - `bias` (E), unless null, is added to the scores for the choice alone; `values` are the scores without it.
/// - A NaN score ranks below minus infinity, so the K ids of a row are always valid and distinct.
/// - `values` may be null. Returns false, and writes nothing, unless 0 <= K <= E <= APUS_TOPK_MAX_EXPERTS.
bool apus_topk_f32(
    int32_t *ids, float *values, const float *scores, ptrdiff_t stride, const float *bias, ptrdiff_t rows,
    ptrdiff_t experts, ptrdiff_t choices);

/// counts[e] (E) = the number of the n ids equal to e. Ids outside 0 ..< E (dropped slots are -1) are skipped.
void apus_expert_histogram(int32_t *counts, const int32_t *ids, ptrdiff_t n, ptrdiff_t experts);

/// Orders slots by expert, stably (slot order inside an expert): a counting sort.
///
/// - `ids` (slots) holds the expert of slot s = t * K + k, or an id outside 0 ..< E for a dropped slot.
/// - `counts` (E) receives each expert's number of rows; `offsets` (E + 1) the first row of each expert and the end.
/// - `alignment` >= 1: every expert's rows are padded to a multiple of it (128 for 128-row blocks, 1 for no padding).
/// - `slot_to_row` (slots) receives each slot's row, -1 if dropped. `row_to_slot` (offsets[E]) receives each row's
///   slot, and `row_to_token`, unless null, slot / choices; both are -1 in padding rows. Capacity needed: slots + E *
///   (alignment - 1).
/// - Returns offsets[E], the number of rows R, padding included.
ptrdiff_t apus_expert_sort(
    int32_t *row_to_slot, int32_t *row_to_token, int32_t *slot_to_row, int32_t *counts, int32_t *offsets,
    const int32_t *ids, ptrdiff_t slots, ptrdiff_t choices, ptrdiff_t experts, ptrdiff_t alignment);

#endif
