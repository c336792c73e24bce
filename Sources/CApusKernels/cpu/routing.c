// Top-k selection, expert histogram and the stable counting sort of slots by expert.

#include "apus_routing.h"

#include "simd.h"

/// Integer keys that order like the scores: -0 equals +0, and NaN ranks just above `taken`, below minus infinity.
APUS_INLINE void ordered_keys(i32x16 *keys, const f32x16 *scores) {
    // Adding +0 turns -0 into +0.
    f32x16 value = *scores + 0.0f;
    i32x16 bits = (i32x16)value;
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF);
    *keys = (value != value) ? (i32x16)(INT32_MIN + 1) : bits;
}

APUS_CLONES bool apus_topk_f32(
    int32_t *ids, float *values, const float *scores, ptrdiff_t stride, const float *bias, ptrdiff_t rows,
    ptrdiff_t experts, ptrdiff_t choices) {
    typedef i32x16 i32x16_unaligned __attribute__((aligned(4), may_alias));
    if (choices < 0 || choices > experts || experts > APUS_TOPK_MAX_EXPERTS) return false;
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    // A chosen or padding position; no score has this key.
    const int32_t taken = INT32_MIN;
    int32_t keys[APUS_TOPK_MAX_EXPERTS];
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const float *row = scores + r * stride;
        APUS_EACH16(i, c, experts, {
            f32x16 score, b = 0.0f;
            i32x16 key;
            load_f32(&score, row + i, c);
            if (bias) load_f32(&b, bias + i, c);
            score = score + b;
            ordered_keys(&key, &score);
            if (c < 16) key = (lane < (int32_t)c) ? key : (i32x16)taken;
            *(i32x16_unaligned *)(keys + i) = key;
        })
        for (ptrdiff_t k = 0; k < choices; ++k) {
            i32x16 best = *(const i32x16_unaligned *)keys, where = lane;
            for (ptrdiff_t i = 16; i < experts; i += 16) {
                i32x16 key = *(const i32x16_unaligned *)(keys + i);
                where = key > best ? lane + (int32_t)i : where;
                best = key > best ? key : best;
            }
            int32_t top = __builtin_reduce_max(best);
            where = (best == top) ? where : (i32x16)INT32_MAX;
            int32_t id = __builtin_reduce_min(where);
            keys[id] = taken;
            ids[r * choices + k] = id;
            if (values) values[r * choices + k] = row[id];
        }
    }
    return true;
}

void apus_expert_histogram(int32_t *counts, const int32_t *ids, ptrdiff_t n, ptrdiff_t experts) {
    for (ptrdiff_t e = 0; e < experts; ++e) counts[e] = 0;
    for (ptrdiff_t i = 0; i < n; ++i) {
        if ((uint32_t)ids[i] < (uint64_t)experts) counts[ids[i]] += 1;
    }
}

ptrdiff_t apus_expert_sort(
    int32_t *row_to_slot, int32_t *row_to_token, int32_t *slot_to_row, int32_t *counts, int32_t *offsets,
    const int32_t *ids, ptrdiff_t slots, ptrdiff_t choices, ptrdiff_t experts, ptrdiff_t alignment) {
    apus_expert_histogram(counts, ids, slots, experts);
    ptrdiff_t total = 0;
    for (ptrdiff_t e = 0; e < experts; ++e) {
        offsets[e] = (int32_t)total;
        total += (counts[e] + alignment - 1) / alignment * alignment;
    }
    offsets[experts] = (int32_t)total;
    // While slots are placed, offsets[e] is the next free row of expert e.
    for (ptrdiff_t s = 0; s < slots; ++s) {
        if ((uint32_t)ids[s] >= (uint64_t)experts) {
            slot_to_row[s] = -1;
            continue;
        }
        int32_t row = offsets[ids[s]]++;
        slot_to_row[s] = row;
        row_to_slot[row] = (int32_t)s;
    }
    for (ptrdiff_t e = 0; e < experts; ++e) {
        int32_t end = offsets[e];
        offsets[e] -= counts[e];
        int32_t padded = (int32_t)((counts[e] + alignment - 1) / alignment * alignment);
        for (int32_t row = end; row < offsets[e] + padded; ++row) row_to_slot[row] = -1;
    }
    if (row_to_token) {
        for (ptrdiff_t row = 0; row < total; ++row) {
            row_to_token[row] = row_to_slot[row] < 0 ? -1 : row_to_slot[row] / (int32_t)choices;
        }
    }
    return total;
}
