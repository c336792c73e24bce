#ifndef APUS_SIMD_PHILOX_H
#define APUS_SIMD_PHILOX_H

// Philox4x32-10 over eight blocks at a time, and the random words of 64 consecutive elements.

#include "apus_random.h"
#include "simd.h"

/// Words of blocks first ..< first + 8, one block a lane, in the lower half of each 64-bit lane.
APUS_INLINE void philox_blocks(u64x8 words[4], apus_random_stream stream, uint64_t first) {
    const u64x8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
    const u64x8 low = (u64x8)0xFFFFFFFFu;
    u64x8 block = lane + first;
    u64x8 x = block, y = block >> 32, z = stream.word0, w = stream.word1;
    uint32_t k0 = (uint32_t)stream.seed, k1 = (uint32_t)(stream.seed >> 32);
#pragma clang loop unroll(full)
    for (int round = 0; round < 10; ++round) {
        // Masking the factors is free: the 32-bit multiply reads the lower halves anyway. Upper halves hold noise.
        u64x8 a = (x & low) * (uint64_t)0xD2511F53u;
        u64x8 b = (z & low) * (uint64_t)0xCD9E8D57u;
        x = (b >> 32) ^ y ^ (uint64_t)k0;
        z = (a >> 32) ^ w ^ (uint64_t)k1;
        y = b;
        w = a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = x;
    words[1] = y;
    words[2] = z;
    words[3] = w;
}

/// Words x, y, z, w of 16 blocks, one block a lane.
APUS_INLINE void philox_words(u32x16 words[4], apus_random_stream stream, uint64_t first_block) {
    typedef uint32_t u32x8 __attribute__((ext_vector_type(8)));
    u64x8 a[4], b[4];
    philox_blocks(a, stream, first_block);
    philox_blocks(b, stream, first_block + 8);
    for (int i = 0; i < 4; ++i) {
        u32x8 low = __builtin_convertvector(a[i], u32x8), high = __builtin_convertvector(b[i], u32x8);
        words[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
}

/// Interleaves four word vectors into element order: out[4 * block + i] = words[i][block].
APUS_INLINE void interleave_words(u32x16 out[4], const u32x16 words[4]) {
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
    u32x16 even_low = __builtin_shufflevector(words[0], words[2], LOWER);
    u32x16 even_high = __builtin_shufflevector(words[0], words[2], UPPER);
    u32x16 odd_low = __builtin_shufflevector(words[1], words[3], LOWER);
    u32x16 odd_high = __builtin_shufflevector(words[1], words[3], UPPER);
    out[0] = __builtin_shufflevector(even_low, odd_low, LOWER);
    out[1] = __builtin_shufflevector(even_low, odd_low, UPPER);
    out[2] = __builtin_shufflevector(even_high, odd_high, LOWER);
    out[3] = __builtin_shufflevector(even_high, odd_high, UPPER);
#undef LOWER
#undef UPPER
}

#endif
