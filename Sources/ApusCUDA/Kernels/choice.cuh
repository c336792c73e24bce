#pragma once
// The K highest of a row of scores that a warp holds in registers.

#include "reduce.cuh"

/// A chosen or missing position; no score has this key.
constexpr i32 taken = (i32)0x80000000;

/// An integer that orders like the score: -0 equals +0, and NaN ranks above `taken` and below minus infinity.
inline i32 ordered_key(float score) {
    const i32 bits = __float_as_int(score + 0.0f);
    return score != score ? (i32)0x80000001 : bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

/// The position of the largest key over the warp, ties to the lowest; it is taken. A lane holds the keys of positions
/// lane + 32 * i.
template <int per_lane> inline u32 take_largest(i32 (&keys)[per_lane], int lane) {
    i32 best = keys[0];
    u32 where = lane;
#pragma unroll
    for (int i = 1; i < per_lane; ++i) {
        if (keys[i] > best) best = keys[i], where = lane + 32 * i;
    }
    const i32 top = __reduce_max_sync(all_lanes, best);
    const u32 place = __reduce_min_sync(all_lanes, best == top ? where : 0xFFFFFFFFu);
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        if (place == lane + 32 * i) keys[i] = taken;
    }
    return place;
}
