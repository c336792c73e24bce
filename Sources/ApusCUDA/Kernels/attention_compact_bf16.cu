// Attention in bf16 through mma.sync for heads wider than 64 on devices whose blocks get less shared memory than
// attention_bf16.cu and attention_backward_bf16.cu take: 99 KB on a GeForce, 163 KB on an A100. See
// attention_forward.cuh and attention_backward.cuh.
//
// The same rows to a block, in less memory: tiles without padding between rows, and shorter ones or one buffer in place
// of two for the other side. A multiprocessor of such a device holds one block, so W = 128 has 8 warps forward too.
//
// Launch: grids as for the kernels without `_compact`; 256 threads, for W = 256 128; 98,304 bytes of shared memory,
// 2048 more for dk and dv; the smaller W of 128 and 256 that holds H. dk and dv: g at most 64, for W = 256 32; scale
// above 0.

#include "attention_backward.cuh"
#include "attention_forward.cuh"

/// A warp's 16 rows of 256 fill its registers: fewer warps leave room for the copies.
constexpr int threads_for(int W) { return W == 256 ? 128 : 256; }
/// Tiles that fit beside the block's own rows.
template <int W> using ForwardTile = Tile<W, threads_for(W), W == 256 ? 32 : 64, 2, true>;
template <int W> using BackwardTile = Tile<W, threads_for(W), W == 256 ? 32 : 64, 1, true>;

#define DEFINE(W)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(threads_for(W), 1) attention_bf16_##W##_compact(                      \
        bf16 *out, i64 out_stride, float *sums, const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride,              \
        const bf16 *v, i64 v_stride, ATTENTION_ARGUMENTS) {                                                            \
        attention_forward<ForwardTile<W>, W, threads_for(W), 1>(                                                       \
            out, out_stride, sums, q, q_stride, k, k_stride, v, v_stride, ATTENTION);                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(threads_for(W), 1) attention_query_gradient_bf16_##W##_compact(       \
        bf16 *dq, i64 dq_stride, const bf16 *dout, i64 dout_stride, const float *sums, const float *delta,             \
        const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v, i64 v_stride, ATTENTION_ARGUMENTS) {  \
        query_gradient<BackwardTile<W>, W, threads_for(W)>(                                                            \
            dq, dq_stride, dout, dout_stride, sums, delta, q, q_stride, k, k_stride, v, v_stride, ATTENTION);          \
    }
DEFINE(128)
DEFINE(256)

extern "C" __global__ void __launch_bounds__(256, 1) attention_key_gradient_bf16_128_compact(
    KEY_ARGUMENTS, ATTENTION_ARGUMENTS) {
    key_gradient<BackwardTile<128>, 128, 256, true, true>(KEY_VALUES);
}
/// A warp's registers hold dk or dv, not both: one for each of 2 blocks in z.
extern "C" __global__ void __launch_bounds__(128, 1) attention_key_gradient_bf16_256_compact(
    KEY_ARGUMENTS, ATTENTION_ARGUMENTS) {
    if (blockIdx.z == 0) key_gradient<BackwardTile<256>, 256, 128, true, false>(KEY_VALUES);
    else key_gradient<BackwardTile<256>, 256, 128, false, true>(KEY_VALUES);
}
