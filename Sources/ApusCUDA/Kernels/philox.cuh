#pragma once
// Philox4x32-10 (Salmon et al., SC'11), keyed and counted as the CPU's: a draw is a pure function of (seed, word0,
// word1, element index), so that a CPU and a GPU, and any cut of the work, draw the same words.

#include "types.cuh"

/// Names one sequence of draws.
struct RandomStream {
    u64 seed;
    u32 word0, word1;
};

/// The four words of the elements 4 * block ... 4 * block + 3.
inline uint4 random_block(RandomStream stream, u64 block) {
    u32 x = (u32)block, y = (u32)(block >> 32), z = stream.word0, w = stream.word1;
    u32 k0 = (u32)stream.seed, k1 = (u32)(stream.seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 a_high = __umulhi(0xD2511F53u, x), a_low = 0xD2511F53u * x;
        const u32 b_high = __umulhi(0xCD9E8D57u, z), b_low = 0xCD9E8D57u * z;
        x = b_high ^ y ^ k0;
        z = a_high ^ w ^ k1;
        y = b_low;
        w = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(x, y, z, w);
}

/// A float strictly inside (0, 1): the centre of one of 2^23 equal intervals.
inline float uniform_from_word(u32 word) { return ((float)(word >> 9) + 0.5f) * 1.1920928955078125e-7f; }

/// The words of eight consecutive elements, from any index on.
inline void random_words(u32 words[lanes], RandomStream stream, u64 first) {
    const u32 skip = (u32)first & 3;
    const u64 block = first >> 2;
    const uint4 a = random_block(stream, block), b = random_block(stream, block + 1);
    u32 all[12] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, 0, 0, 0, 0};
    if (skip == 0) {
#pragma unroll
        for (int i = 0; i < lanes; ++i) words[i] = all[i];
        return;
    }
    const uint4 c = random_block(stream, block + 2);
    all[8] = c.x, all[9] = c.y, all[10] = c.z, all[11] = c.w;
#pragma unroll
    for (int i = 0; i < lanes; ++i) words[i] = skip == 1 ? all[i + 1] : skip == 2 ? all[i + 2] : all[i + 3];
}
