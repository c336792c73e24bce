// Random fills from counter-based streams. See Ops/Elementwise.swift and the CPU's random.c.
//
// Launch: "flat". Element i depends on (seed, word0, word1, first + i) alone and uses the CPU's words: uniform draws
// are the CPU's bits, normal and Gumbel draws differ in the last bits of log, sine and cosine. `word0` and `word1` are
// the stream's two words in the low halves. About 45 integer operations an element; near the floor of writing the
// bytes.

#include "philox.cuh"

inline RandomStream make_stream(i64 seed, i64 word0, i64 word1) { return {(u64)seed, (u32)word0, (u32)word1}; }

struct Uniform {
    float low, range;
    float draw(const u32 words[4], int i) const { return uniform_from_word(words[i]) * range + low; }
};

/// Box-Muller: words 0 and 1 of a block give elements 0 and 1, words 2 and 3 the others.
struct Normal {
    float mean, deviation;
    float draw(const u32 words[4], int i) const {
        const float radius = sqrtf(logf(uniform_from_word(words[i & 2])) * -2.0f) * deviation;
        float sine, cosine;
        sincospif(2.0f * uniform_from_word(words[(i & 2) + 1]), &sine, &cosine);
        return radius * (i & 1 ? sine : cosine) + mean;
    }
};

struct Gumbel {
    float draw(const u32 words[4], int i) const { return -logf(-logf(uniform_from_word(words[i]))); }
};

/// A thread draws a block of four at a time: blocks are aligned to the stream's elements, not to y.
template <class T, class Distribution>
inline void draw(T *y, i64 n, RandomStream stream, u64 first, Distribution distribution) {
    const u64 begin = first >> 2, blocks = ((first + (u64)n + 3) >> 2) - begin;
    for (u64 b = (u64)blockIdx.x * blockDim.x + threadIdx.x; b < blocks; b += (u64)gridDim.x * blockDim.x) {
        const uint4 block = random_block(stream, begin + b);
        const u32 words[4] = {block.x, block.y, block.z, block.w};
        const i64 at = (i64)((begin + b) * 4 - first);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (at + i >= 0 && at + i < n) y[at + i] = from_float<T>(distribution.draw(words, i));
        }
    }
}

#define DEFINE(suffix, T)                                                                                              \
    extern "C" __global__ void random_uniform_##suffix(                                                                \
        T *y, i64 n, i64 seed, i64 word0, i64 word1, i64 first, float low, float high) {                               \
        draw(y, n, make_stream(seed, word0, word1), (u64)first, Uniform{low, high - low});                             \
    }                                                                                                                  \
    extern "C" __global__ void random_normal_##suffix(                                                                 \
        T *y, i64 n, i64 seed, i64 word0, i64 word1, i64 first, float mean, float deviation) {                         \
        draw(y, n, make_stream(seed, word0, word1), (u64)first, Normal{mean, deviation});                              \
    }                                                                                                                  \
    extern "C" __global__ void random_gumbel_##suffix(T *y, i64 n, i64 seed, i64 word0, i64 word1, i64 first) {        \
        draw(y, n, make_stream(seed, word0, word1), (u64)first, Gumbel{});                                             \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
