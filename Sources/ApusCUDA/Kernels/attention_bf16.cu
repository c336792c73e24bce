// Attention forward in bf16 through mma.sync (attention_forward.cuh).
//
// A block of 4 warps has 128 rows (token, head), a warp 32 of them (64 and 16 for W = 256): each key fragment then
// serves two products. W = 128 takes 104 KB of shared memory, two blocks a multiprocessor. The floor is 4 H operations
// for each visible pair, over what mma.sync reaches.
//
// Launch: (tiles, Hk) blocks of 128 threads, tiles = ceil(T / floor(rows / g)) + S; `attention_bf16_W` with the
// smallest W >= H; (rows + 256) * (2 W + 16) bytes of shared memory; rows = 128, for W = 256 64. g at most `rows`;
// scale above 0.

#include "attention_forward.cuh"

constexpr int all_threads = 128;

/// out (T, Hq, H), sums (T, Hq) or null. Strides are elements between tokens.
#define DEFINE(W)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(all_threads, W == 256 ? 1 : 2) attention_bf16_##W(                    \
        bf16 *out, i64 out_stride, float *sums, const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride,              \
        const bf16 *v, i64 v_stride, ATTENTION_ARGUMENTS) {                                                            \
        attention_forward<Tile<W, all_threads>, W, all_threads, W == 256 ? 1 : 2>(                                     \
            out, out_stride, sums, q, q_stride, k, k_stride, v, v_stride, ATTENTION);                                  \
    }
DEFINE(32)
DEFINE(64)
DEFINE(128)
DEFINE(256)
