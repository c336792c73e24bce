// Slots ordered by expert, stably: counts, offsets, the map and its inverse. See Ops/Router.swift, `sortByExpert`.
//
// A counting sort over the dense table of chosen experts (DeepSpeed-MoE section 5.4), three launches, nothing on the
// host:
//   expert_histogram  counts each chunk's choices of each expert
//   expert_offsets    one block: chunk counts to first rows, experts' counts and offsets
//   expert_place      writes each slot's row, and each row's slot and token
// A chunk is 2048 slots, 256 to each of 8 warps, which take them 32 at a time: ties within a warp are counted by
// matching lanes, so that no order depends on atomics. Slots are read twice and four arrays of slots written: 5 MB for
// 262,144 slots, 2 microseconds; the launches are the cost.

#include "reduce.cuh"

constexpr int warps = 8, warp_slots = 256, chunk_slots = warps * warp_slots;

/// chunk_counts[c, e] = how often chunk c chooses expert e. Launch: slots / 2048 blocks rounded up, 256 threads, 4 E
/// bytes of shared memory. Ids outside 0 ..< E are dropped slots.
extern "C" __global__ void expert_histogram(i32 *chunk_counts, const i32 *ids, i64 slots, i64 experts) {
    extern __shared__ i32 counts[];
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) counts[e] = 0;
    __syncthreads();
    const i64 begin = (i64)blockIdx.x * chunk_slots, end = min(slots, begin + chunk_slots);
    for (i64 slot = begin + threadIdx.x; slot < end; slot += blockDim.x) {
        const i32 id = ids[slot];
        if (id >= 0 && id < experts) atomicAdd(counts + id, 1);
    }
    __syncthreads();
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) chunk_counts[blockIdx.x * experts + e] = counts[e];
}

/// counts (E), offsets (E + 1), and chunk_counts[c, e] turned into the first row of expert e's slots of chunk c.
/// Launch: one block of 1024 threads, 4 (E + 1) bytes of shared memory; E at most 1024.
extern "C" __global__ void expert_offsets(i32 *counts, i32 *offsets, i32 *chunk_counts, i64 chunks, i64 experts) {
    extern __shared__ i32 first[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (i64 e = warp; e < experts; e += 32) {
        i32 sum = 0;
        for (i64 c = lane; c < chunks; c += 32) sum += chunk_counts[c * experts + e];
        sum = __reduce_add_sync(all_lanes, sum);
        if (lane == 0) counts[e] = first[e] = sum;
    }
    __syncthreads();
    // Exclusive sums over experts, by doubling.
    const i64 e = threadIdx.x;
    i32 own = e < experts ? first[e] : 0, sum = own;
    for (i64 step = 1; step < experts; step *= 2) {
        const i32 other = e < experts && e >= step ? first[e - step] : 0;
        __syncthreads();
        sum += other;
        if (e < experts) first[e] = sum;
        __syncthreads();
    }
    if (e < experts) offsets[e + 1] = sum;
    if (e == 0) offsets[0] = 0;
    if (e < experts) first[e] = sum - own;
    __syncthreads();
    // Exclusive sums over the chunks of each expert, 32 chunks at a time.
    for (i64 e = warp; e < experts; e += 32) {
        i32 row = first[e];
        for (i64 c = lane; c - lane < chunks; c += 32) {
            const i32 here = c < chunks ? chunk_counts[c * experts + e] : 0;
            i32 upto = here;
#pragma unroll
            for (int offset = 1; offset < 32; offset *= 2) {
                const i32 other = __shfl_up_sync(all_lanes, upto, offset);
                if (lane >= offset) upto += other;
            }
            if (c < chunks) chunk_counts[c * experts + e] = row + upto - here;
            row += __shfl_sync(all_lanes, upto, 31);
        }
    }
}

/// slot_to_row, row_to_slot and row_to_token (slots each); rows beyond the last are -1, and so is the row of a dropped
/// slot. Launch: as `expert_histogram`, 32 E bytes of shared memory.
extern "C" __global__ void expert_place(
    i32 *slot_to_row, i32 *row_to_slot, i32 *row_to_token, const i32 *first_rows, const i32 *offsets, const i32 *ids,
    i64 slots, i64 choices, i64 experts) {
    extern __shared__ i32 next[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 begin = (i64)blockIdx.x * chunk_slots, warp_begin = begin + warp * warp_slots;
    i32 *mine = next + warp * experts;
    for (i64 i = threadIdx.x; i < warps * experts; i += blockDim.x) next[i] = 0;
    __syncthreads();
    // What each warp chooses, turned into the next row of each expert for each warp.
    for (int i = lane; i < warp_slots; i += 32) {
        const i64 slot = warp_begin + i;
        const i32 id = slot < slots ? ids[slot] : -1;
        if (id >= 0 && id < experts) atomicAdd(mine + id, 1);
    }
    __syncthreads();
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) {
        i32 row = first_rows[blockIdx.x * experts + e];
        for (int w = 0; w < warps; ++w) {
            const i32 count = next[w * experts + e];
            next[w * experts + e] = row;
            row += count;
        }
    }
    __syncthreads();
    const i32 end = offsets[experts];
    for (int i = lane; i < warp_slots; i += 32) {
        const i64 slot = warp_begin + i;
        const i32 id = slot < slots ? ids[slot] : -1;
        const bool is_kept = id >= 0 && id < experts;
        const u32 peers = __match_any_sync(all_lanes, is_kept ? id : -1);
        const i32 row = is_kept ? mine[id] + __popc(peers & ((1u << lane) - 1)) : -1;
        __syncwarp();
        // The last of the peers leaves the row that follows theirs.
        if (is_kept && peers >> lane == 1) mine[id] = row + 1;
        __syncwarp();
        if (slot >= slots) continue;
        slot_to_row[slot] = row;
        if (is_kept) {
            row_to_slot[row] = (i32)slot;
            row_to_token[row] = (i32)(slot / choices);
        }
        if (slot >= end) row_to_slot[slot] = row_to_token[slot] = -1;
    }
}
