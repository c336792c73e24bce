#pragma once
// Element types, and eight elements of a row at a time as floats.
//
// NVRTC sees no toolkit headers, so everything comes from here. Eight elements are 16 bytes of bf16 or 32 of f32: one
// or two of the widest loads there are. A tensor that does not start or step on 16 bytes takes the same code with
// element-wise loads, so every kernel works for every width.

typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/// The upper half of an f32.
struct bf16 {
    u16 bits;
};

#define infinity __int_as_float(0x7F800000)

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
template <class T> inline T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
/// Rounds to nearest even; NaN stays NaN.
template <> inline bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

/// Two floats as a pair of bf16, `low` at the lower address.
inline u32 bf16_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
inline float pair_low(u32 pair) { return __uint_as_float(pair << 16); }
inline float pair_high(u32 pair) { return __uint_as_float(pair & 0xFFFF0000u); }

/// Elements that a thread holds at once.
constexpr int lanes = 8;
struct Lanes {
    float x[lanes];
};

inline bool is_aligned(const void *p) { return ((u64)p & 15) == 0; }
/// Whether rows `stride` elements apart can all be read in vectors.
template <class T> inline bool is_aligned(const T *p, i64 stride) {
    return (((u64)p | (u64)(stride * (i64)sizeof(T))) & 15) == 0;
}

/// Loads `left` elements, at most eight; the others are zero. `vector` says that whole groups start on 16 bytes.
inline void load(Lanes &to, const float *p, i64 left, bool vector) {
    if (vector && left >= lanes) {
        const float4 a = *(const float4 *)p, b = *(const float4 *)(p + 4);
        to = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        return;
    }
#pragma unroll
    for (int i = 0; i < lanes; ++i) to.x[i] = i < left ? p[i] : 0.0f;
}

inline void load(Lanes &to, const bf16 *p, i64 left, bool vector) {
    if (vector && left >= lanes) {
        const uint4 a = *(const uint4 *)p;
        to = {pair_low(a.x), pair_high(a.x), pair_low(a.y), pair_high(a.y),
              pair_low(a.z), pair_high(a.z), pair_low(a.w), pair_high(a.w)};
        return;
    }
#pragma unroll
    for (int i = 0; i < lanes; ++i) to.x[i] = i < left ? to_float(p[i]) : 0.0f;
}

inline void store(float *p, const Lanes &from, i64 left, bool vector) {
    if (vector && left >= lanes) {
        *(float4 *)p = make_float4(from.x[0], from.x[1], from.x[2], from.x[3]);
        *(float4 *)(p + 4) = make_float4(from.x[4], from.x[5], from.x[6], from.x[7]);
        return;
    }
#pragma unroll
    for (int i = 0; i < lanes; ++i) {
        if (i < left) p[i] = from.x[i];
    }
}

inline void store(bf16 *p, const Lanes &from, i64 left, bool vector) {
    if (vector && left >= lanes) {
        *(uint4 *)p = make_uint4(bf16_pair(from.x[0], from.x[1]), bf16_pair(from.x[2], from.x[3]),
                                 bf16_pair(from.x[4], from.x[5]), bf16_pair(from.x[6], from.x[7]));
        return;
    }
#pragma unroll
    for (int i = 0; i < lanes; ++i) {
        if (i < left) p[i] = from_float<bf16>(from.x[i]);
    }
}

/// Applies `body` to each of the eight floats of `to`, with those of other groups at hand by index.
template <class Body> inline void each(Lanes &to, Body body) {
#pragma unroll
    for (int i = 0; i < lanes; ++i) to.x[i] = body(i);
}

/// Calls `body(first, left)` for the groups of eight among n elements that are this thread's; any grid covers them all.
template <class Body> inline void each_group(i64 n, Body body) {
    const i64 step = (i64)gridDim.x * blockDim.x * lanes;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * lanes; i < n; i += step) body(i, n - i);
}
