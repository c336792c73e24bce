// Holding each expert to its capacity in each routing group, and the padded layout. See Ops/Capacity.swift.
//
// Slots of a group have places: first choices before second choices, tokens in order. A block works for one expert and
// one group and walks the group's choices in the order of places, 256 at a time: ranks are prefix sums, nothing is
// sorted and nothing depends on which block runs first. Launch: (E, G) blocks of 256 threads. Each of the E blocks of a
// group reads its T_g K ids, from cache after the first: E T K words in all, 17 million for 32,768 tokens with 8 of 64
// experts.

#include "reduce.cuh"

constexpr int threads = 256;

/// The slots of one group in the order of their places.
struct Group {
    i64 begin, tokens, choices;

    i64 places() const { return tokens * choices; }
    i64 slot(i64 place) const {
        const i64 choice = place / tokens;
        return (begin + place - choice * tokens) * choices + choice;
    }
};

inline Group group_at(const i32 *ranges, i64 choices) {
    const i64 begin = ranges[2 * blockIdx.y];
    return {begin, ranges[2 * blockIdx.y + 1] - begin, choices};
}

/// The number of threads before this one with `flag`, and in `total` that of all 256.
inline i32 count_before(bool flag, i32 &total) {
    __shared__ i32 counts[threads / 32];
    const u32 votes = __ballot_sync(all_lanes, flag);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    i32 before = __popc(votes & ((1u << lane) - 1));
    total = 0;
    for (int w = 0; w < threads / 32; ++w) {
        if (w < warp) before += counts[w];
        total += counts[w];
    }
    return before;
}

/// An unsigned integer that orders like the value; -0 equals +0.
inline u32 ordered_key(float value) {
    const u32 bits = __float_as_uint(value + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// kept (T, K) is ids with -1 for every choice beyond its expert's capacity: those with the lowest `values` (T, K) go,
/// ties and null values in the order of places.
///
/// The capacity-th highest value is found bit by bit: 32 counting passes, whatever the number of choices.
extern "C" __global__ void limit_to_capacity(
    i32 *kept, const i32 *ids, const float *values, const i32 *ranges, const i32 *capacities, i64 choices) {
    const Group group = group_at(ranges, choices);
    const i32 expert = blockIdx.x, capacity = capacities[blockIdx.y];
    const i64 places = group.places();
    auto count = [&](auto condition) {
        i32 found = 0;
        for (i64 place = threadIdx.x; place < places; place += threads) {
            const i64 slot = group.slot(place);
            found += ids[slot] == expert && condition(slot);
        }
        return row_sum(found);
    };
    // Slots above the threshold stay, and as many of those at it as there is room for, in the order of places.
    u32 threshold = 0;
    i32 room = capacity;
    if (values && count([](i64) { return true; }) > capacity) {
        for (u32 bit = 0x80000000u; bit > 0; bit >>= 1) {
            const u32 trial = threshold | bit;
            if (count([&](i64 slot) { return ordered_key(values[slot]) >= trial; }) >= capacity) threshold = trial;
        }
        room = capacity - count([&](i64 slot) { return ordered_key(values[slot]) > threshold; });
    }
    i32 used = 0;
    for (i64 first = 0; first < places; first += threads) {
        const i64 place = first + threadIdx.x, slot = place < places ? group.slot(place) : 0;
        const i32 id = place < places ? ids[slot] : -1;
        const bool is_mine = id == expert;
        const u32 key = is_mine && values && threshold ? ordered_key(values[slot]) : threshold;
        i32 total;
        const i32 before = count_before(is_mine && key == threshold, total);
        if (is_mine) kept[slot] = key > threshold || (key == threshold && used + before < room) ? expert : -1;
        if (place < places && id < 0 && expert == 0) kept[slot] = -1;
        used += total;
    }
}

/// Rows by expert, each padded to the capacities of all groups: row e * total + starts[g] + place among the expert's
/// kept slots. `starts` (G) are the sums of the capacities before; `counts` (E) starts at 0. Rows without a slot become
/// -1.
extern "C" __global__ void pad_to_capacity(
    i32 *slot_to_row, i32 *row_to_slot, i32 *row_to_token, i32 *counts, i32 *offsets, const i32 *kept,
    const i32 *ranges, const i32 *capacities, const i32 *starts, i64 experts, i64 choices, i64 total) {
    const Group group = group_at(ranges, choices);
    const i32 expert = blockIdx.x, capacity = capacities[blockIdx.y];
    const i64 places = group.places(), base = expert * total + starts[blockIdx.y];
    i32 used = 0;
    for (i64 first = 0; first < places; first += threads) {
        const i64 place = first + threadIdx.x, slot = place < places ? group.slot(place) : 0;
        const i32 id = place < places ? kept[slot] : -1;
        i32 found;
        const i64 row = base + used + count_before(id == expert, found);
        if (id == expert) {
            slot_to_row[slot] = (i32)row;
            row_to_slot[row] = (i32)slot;
            row_to_token[row] = (i32)(slot / choices);
        }
        if (place < places && id < 0 && expert == 0) slot_to_row[slot] = -1;
        used += found;
    }
    for (i64 i = used + threadIdx.x; i < capacity; i += threads) row_to_slot[base + i] = row_to_token[base + i] = -1;
    if (threadIdx.x > 0) return;
    if (used > 0) atomicAdd(counts + expert, used);
    if (blockIdx.y > 0) return;
    offsets[expert] = (i32)(expert * total);
    if (expert == experts - 1) offsets[experts] = (i32)(experts * total);
}

/// kept (T, K) is ids with -1 for every choice but a token's first whose weight is below the threshold. Launch "flat".
extern "C" __global__ void drop_light_choices(
    i32 *kept, const i32 *ids, const float *weights, float threshold, i64 n, i64 choices) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        kept[i] = i % choices == 0 || weights[i] >= threshold ? ids[i] : -1;
    }
}
