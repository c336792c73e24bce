// Attention backward in bf16 through mma.sync (attention_backward.cuh).
//
// Launch: `attention_delta` first ("warps" for T * Hq rows); `attention_key_gradient_bf16_W` with (ceil(keys / rows) +
// S, Hk) blocks; `attention_query_gradient_bf16_W` with (ceil(T / floor(rows / g)) + S, Hk) blocks; rows = 128, 256
// threads, for W = 256 64 and 128 threads. Both take (2 rows + 256) * (2 W + 16) bytes of shared memory, the first 2048
// more. g at most 64. For W = 256 a warp's registers hold dk or dv, not both: `attention_key_gradient_bf16_256` has a
// third extent of 2 blocks.

#include "attention_backward.cuh"

/// A warp's 16 rows of 256 fill its registers: fewer warps leave room for the copies.
constexpr int threads_for(int W) { return W == 256 ? 128 : 256; }

extern "C" __global__ void attention_delta_bf16(
    float *delta, const bf16 *dout, i64 dout_stride, const bf16 *out, i64 out_stride, i64 tokens, i64 heads,
    i64 width) {
    attention_delta(delta, dout, dout_stride, out, out_stride, tokens, heads, width);
}

#define DEFINE_KEYS(W)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(threads_for(W), 1) attention_key_gradient_bf16_##W(                   \
        KEY_ARGUMENTS, ATTENTION_ARGUMENTS) {                                                                          \
        key_gradient<Tile<W, threads_for(W)>, W, threads_for(W), true, true>(KEY_VALUES);                              \
    }
DEFINE_KEYS(32)
DEFINE_KEYS(64)
DEFINE_KEYS(128)
extern "C" __global__ void __launch_bounds__(128, 1) attention_key_gradient_bf16_256(
    KEY_ARGUMENTS, ATTENTION_ARGUMENTS) {
    if (blockIdx.z == 0) key_gradient<Tile<256, 128>, 256, 128, true, false>(KEY_VALUES);
    else key_gradient<Tile<256, 128>, 256, 128, false, true>(KEY_VALUES);
}

#define DEFINE_QUERIES(W)                                                                                              \
    extern "C" __global__ void __launch_bounds__(threads_for(W), 1) attention_query_gradient_bf16_##W(                 \
        bf16 *dq, i64 dq_stride, const bf16 *dout, i64 dout_stride, const float *sums, const float *delta,             \
        const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v, i64 v_stride, ATTENTION_ARGUMENTS) {  \
        query_gradient<Tile<W, threads_for(W)>, W, threads_for(W)>(                                                    \
            dq, dq_stride, dout, dout_stride, sums, delta, q, q_stride, k, k_stride, v, v_stride, ATTENTION);          \
    }
DEFINE_QUERIES(32)
DEFINE_QUERIES(64)
DEFINE_QUERIES(128)
DEFINE_QUERIES(256)
