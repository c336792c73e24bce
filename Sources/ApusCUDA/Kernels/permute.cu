// Slots ordered by expert, stably: counts, offsets, the map and its inverse. See Ops/Router.swift, `sortByExpert`.
//
// One launch where there is one chunk, else two: `expert_histogram`, `expert_place`. Slots are read three times and
// three arrays of slots written, 6 MB for 262,144 slots, 2 microseconds; the launches are the cost.

#include "expert_order.cuh"

/// Counts each chunk's choices; with one chunk also places them. Launch: a block for each `chunk_slots` slots, 256 or
/// 1024 threads, 4 ((warps + 2) E + 1) bytes of shared memory.
extern "C" __global__ void expert_histogram(
    i32 *slot_to_row, i32 *row_to_slot, i32 *row_to_token, i32 *counts, i32 *offsets, i32 *chunk_counts, const i32 *ids,
    i64 slots, i64 choices, i64 experts, i64 chunk_slots) {
    extern __shared__ i32 shared[];
    const ExpertOrder order = {slot_to_row, row_to_slot, row_to_token, counts, offsets, chunk_counts};
    for (i64 e = threadIdx.x; e < experts; e += blockDim.x) shared[e] = 0;
    __syncthreads();
    const i64 begin = (i64)blockIdx.x * chunk_slots, end = min(slots, begin + chunk_slots);
    for (i64 slot = begin + threadIdx.x; slot < end; slot += blockDim.x) {
        const i32 id = ids[slot];
        if (id >= 0 && id < experts) atomicAdd(shared + id, 1);
    }
    __syncthreads();
    store_counts(order, shared, experts);
    __syncthreads();
    if (gridDim.x == 1) place_chunk(order, shared, ids, slots, choices, experts, chunk_slots);
}

/// Launch as `expert_histogram`, or as the kernel of expert_choice.cu that has counted.
extern "C" __global__ void expert_place(
    i32 *slot_to_row, i32 *row_to_slot, i32 *row_to_token, i32 *counts, i32 *offsets, i32 *chunk_counts, const i32 *ids,
    i64 slots, i64 choices, i64 experts, i64 chunk_slots) {
    extern __shared__ i32 shared[];
    const ExpertOrder order = {slot_to_row, row_to_slot, row_to_token, counts, offsets, chunk_counts};
    place_chunk(order, shared, ids, slots, choices, experts, chunk_slots);
}
