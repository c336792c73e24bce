#pragma once
// Slots ordered by expert, stably: a counting sort over the dense table of chosen experts (DeepSpeed-MoE section 5.4).
//
// Slots are cut into chunks, one block each. First every chunk counts its choices of each expert; then every chunk sums
// the others' counts for itself, which costs less than a launch that does it once, and writes its slots' rows. What has
// one chunk is done in one launch. No order depends on atomics: ties within a warp are ranked by matching lanes.

#include "reduce.cuh"

/// Where the order goes: slot_to_row, row_to_slot and row_to_token (slots each), counts (E), offsets (E + 1); rows
/// beyond the last are -1, and so is the row of a dropped slot. chunk_counts (E, chunks) is between the two.
struct ExpertOrder {
    i32 *slot_to_row, *row_to_slot, *row_to_token, *counts, *offsets, *chunk_counts;
};

/// chunk_counts[e, c] = counts[e], of the block's chunk c.
inline void store_counts(const ExpertOrder &order, const i32 *counts, i64 experts) {
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) order.chunk_counts[e * gridDim.x + blockIdx.x] = counts[e];
}

/// Places the slots of the block's chunk once all chunks have stored their counts. `shared` has (warps + 2) E + 1
/// words. Ids outside 0 ..< E are dropped slots.
inline void place_chunk(
    const ExpertOrder &order, i32 *shared, const i32 *ids, i64 slots, i64 choices, i64 experts, i64 chunk_slots) {
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 chunks = gridDim.x, chunk = blockIdx.x;
    i32 *first = shared + warps * experts, *mine = shared + warp * experts;
    for (i64 e = threadIdx.x; e < warps * experts; e += blockDim.x) shared[e] = 0;
    __syncthreads();
    // What each warp chooses. A warp takes neighbouring slots, 32 at a time.
    const i64 warp_slots = (chunk_slots + 32 * warps - 1) / (32 * warps) * 32;
    const i64 begin = chunk * chunk_slots + warp * warp_slots;
    const i64 end = min(min(slots, (chunk + 1) * chunk_slots), begin + warp_slots);
    for (i64 slot = begin + lane; slot < end; slot += 32) {
        const i32 id = ids[slot];
        if (id >= 0 && id < experts) atomicAdd(mine + id, 1);
    }
    // Each expert's slots in all chunks, and in those before this one.
    for (i64 e = warp; e < experts; e += warps) {
        i32 total = 0, before = 0;
        for (i64 c = lane; c < chunks; c += 32) {
            const i32 count = order.chunk_counts[e * chunks + c];
            total += count;
            before += c < chunk ? count : 0;
        }
        total = __reduce_add_sync(all_lanes, total);
        before = __reduce_add_sync(all_lanes, before);
        if (lane == 0) first[e] = total, first[experts + e] = before;
    }
    __syncthreads();
    if (warp == 0) {
        i32 row = 0;
        for (i64 base = 0; base < experts; base += 32) {
            const i64 e = base + lane;
            const i32 total = e < experts ? first[e] : 0;
            i32 upto = total;
#pragma unroll
            for (int offset = 1; offset < 32; offset *= 2) {
                const i32 other = __shfl_up_sync(all_lanes, upto, offset);
                if (lane >= offset) upto += other;
            }
            if (e < experts) {
                first[e] = row + upto - total + first[experts + e];
                if (chunk == 0) order.counts[e] = total, order.offsets[e] = row + upto - total;
            }
            row += __shfl_sync(all_lanes, upto, 31);
        }
        if (lane == 0) first[2 * experts] = row;
        if (lane == 0 && chunk == 0) order.offsets[experts] = row;
    }
    __syncthreads();
    // The next row of each expert for each warp.
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) {
        i32 row = first[e];
        for (int w = 0; w < warps; ++w) {
            const i32 count = shared[w * experts + e];
            shared[w * experts + e] = row;
            row += count;
        }
    }
    __syncthreads();
    const i32 rows = first[2 * experts];
    for (i64 base = begin; base < end; base += 32) {
        const i64 slot = base + lane;
        const i32 id = slot < end ? ids[slot] : -1;
        const bool is_kept = id >= 0 && id < experts;
        const u32 peers = __match_any_sync(all_lanes, is_kept ? id : -1);
        const i32 row = is_kept ? mine[id] + __popc(peers & ((1u << lane) - 1)) : -1;
        __syncwarp();
        // The last of the peers leaves the row that follows theirs.
        if (is_kept && peers >> lane == 1) mine[id] = row + 1;
        __syncwarp();
        if (slot >= end) continue;
        order.slot_to_row[slot] = row;
        if (is_kept) {
            order.row_to_slot[row] = (i32)slot;
            order.row_to_token[row] = (i32)(slot / choices);
        }
        if (slot >= rows) order.row_to_slot[slot] = order.row_to_token[slot] = -1;
    }
}
