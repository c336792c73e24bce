#ifndef APUS_RANDOM_H
#define APUS_RANDOM_H

// Counter-based random numbers: Philox4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3", SC'11).
//
// A draw is a pure function of (seed, two purpose words, element index). Splitting a range over threads or ranks
// changes no draw.

#include <stddef.h>
#include <stdint.h>

#include "apus_types.h"

/// Four 32-bit words: a Philox counter, or the block of random words it maps to.
typedef struct apus_u32x4 {
    uint32_t x, y, z, w;
} apus_u32x4;

/// Names one sequence of draws; element i of the sequence has the 64-bit index i.
///
/// Convention of the project: `word0 = purpose << 16 | layer`, `word1 = step`. Any two streams that differ in a field
/// are independent.
typedef struct apus_random_stream {
    uint64_t seed;
    uint32_t word0;
    uint32_t word1;
} apus_random_stream;

/// Philox4x32-10: maps (key, counter) to four random words. The low half of `key` is key word 0.
static inline apus_u32x4 apus_philox(uint64_t key, apus_u32x4 counter) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        uint64_t a = (uint64_t)0xD2511F53u * counter.x;
        uint64_t b = (uint64_t)0xCD9E8D57u * counter.z;
        uint32_t x = (uint32_t)(b >> 32) ^ counter.y ^ k0, z = (uint32_t)(a >> 32) ^ counter.w ^ k1;
        apus_u32x4 next = {x, (uint32_t)b, z, (uint32_t)a};
        counter = next;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

/// The four random words that elements 4 * block ... 4 * block + 3 of a stream use, in that order.
static inline apus_u32x4 apus_random_block(apus_random_stream stream, uint64_t block) {
    apus_u32x4 counter = {(uint32_t)block, (uint32_t)(block >> 32), stream.word0, stream.word1};
    return apus_philox(stream.seed, counter);
}

/// The random word of element `index` of a stream.
static inline uint32_t apus_random_word(apus_random_stream stream, uint64_t index) {
    apus_u32x4 block = apus_random_block(stream, index >> 2);
    switch (index & 3) {
    case 0: return block.x;
    case 1: return block.y;
    case 2: return block.z;
    default: return block.w;
    }
}

/// Maps a random word to a float strictly inside (0, 1): the centre of one of 2^23 equal intervals.
static inline float apus_uniform_from_word(uint32_t word) {
    return ((float)(word >> 9) + 0.5f) * 0x1p-23f;
}

/// Fills y (n) with uniform draws low + (high - low) * u of elements first ..< first + n of the stream.
void apus_random_uniform_f32(
    float *y, ptrdiff_t n, apus_random_stream stream, uint64_t first, float low, float high);

/// Fills y (n) with normal draws (Box-Muller over the words of one block) of elements first ..< first + n of the
/// stream.
void apus_random_normal_f32(
    float *y, ptrdiff_t n, apus_random_stream stream, uint64_t first, float mean, float deviation);

/// Fills y (n) with standard Gumbel draws -log(-log u) of elements first ..< first + n of the stream.
void apus_random_gumbel_f32(float *y, ptrdiff_t n, apus_random_stream stream, uint64_t first);

/// Fills y (n) with the random words of elements first ..< first + n of the stream.
void apus_random_words(uint32_t *y, ptrdiff_t n, apus_random_stream stream, uint64_t first);

#endif
