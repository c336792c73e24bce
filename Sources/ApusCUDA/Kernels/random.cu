// Random fills from counter-based streams. See Ops/Elementwise.swift and the CPU's random.c.
//
// Launch: "flat". Element i depends on (seed, word0, word1, first + i) alone and uses the CPU's words: uniform draws
// are the CPU's bits, normal and Gumbel draws differ in the last bits of log, sine and cosine. `word0` and `word1` are
// the stream's two words in the low halves. About 45 integer operations an element; near the floor of writing the
// bytes.
//
// Dropout draws the words of the element's place in a larger whole. See Ops/Dropout.swift.

#include "philox.cuh"
#include "reduce.cuh"

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

/// y = x * factor, or 0 where the draw of element `number * total + first + column` is below the rate; a row's number is
/// in two digits of base 65,536. Launch "rows". A thread takes a block of four draws at a time.
template <class T>
inline void drop_rows(
    T *y, i64 y_stride, const T *x, i64 x_stride, const float *numbers, i64 rows, i64 width, i64 first, i64 total,
    RandomStream stream, float rate, float factor) {
    const i64 row = row_index();
    if (row >= rows) return;
    const u64 number = (u64)numbers[2 * row] * 65536u + (u64)numbers[2 * row + 1];
    const u64 base = number * (u64)total + (u64)first;
    const u64 begin = base >> 2, blocks = ((base + (u64)width + 3) >> 2) - begin;
    for (u64 b = threadIdx.x; b < blocks; b += blockDim.x) {
        const uint4 block = random_block(stream, begin + b);
        const u32 words[4] = {block.x, block.y, block.z, block.w};
        const i64 at = (i64)((begin + b) * 4 - base);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (at + i < 0 || at + i >= width) continue;
            const float value = to_float(x[row * x_stride + at + i]) * factor;
            y[row * y_stride + at + i] = from_float<T>(uniform_from_word(words[i]) >= rate ? value : 0.0f);
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
    }                                                                                                                  \
    extern "C" __global__ void drop_rows_##suffix(                                                                     \
        T *y, i64 y_stride, const T *x, i64 x_stride, const float *numbers, i64 rows, i64 width, i64 first, i64 total, \
        i64 seed, i64 word0, i64 word1, float rate, float factor) {                                                    \
        drop_rows(                                                                                                     \
            y, y_stride, x, x_stride, numbers, rows, width, first, total, make_stream(seed, word0, word1), rate,       \
            factor);                                                                                                   \
    }
DEFINE(f32, float)
DEFINE(bf16, bf16)
