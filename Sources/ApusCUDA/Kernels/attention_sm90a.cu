// Attention in bf16 on Hopper's tensor instructions (attention_hopper.cuh), forward and backward: the kernels of
// attention_forward.cuh and attention_backward.cuh with 128 rows to a block of 8 warps.
//
// Launch: 256 threads; grids as for attention_bf16.cu and attention_backward_bf16.cu with rows = 128; shared memory
// 1024 bytes for alignment and (rows + 256) * 2 W forward, (2 rows + 256) * 2 W for dq, 2048 more for dk and dv. W is
// 64 or 128, the smaller that holds H. `attention_delta_bf16` is that of attention_backward_bf16.cu.

#include "attention_backward.cuh"
#include "attention_forward.cuh"
#include "attention_hopper.cuh"

constexpr int all_threads = 256;

#define DEFINE(W)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) attention_sm90a_##W(                                  \
        bf16 *out, i64 out_stride, float *sums, const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride,              \
        const bf16 *v, i64 v_stride, ATTENTION_ARGUMENTS) {                                                            \
        attention_forward<HopperTile<W, all_threads>, W, all_threads, 1>(                                              \
            out, out_stride, sums, q, q_stride, k, k_stride, v, v_stride, ATTENTION);                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) attention_key_gradient_sm90a_##W(                     \
        KEY_ARGUMENTS, ATTENTION_ARGUMENTS) {                                                                          \
        key_gradient<HopperTile<W, all_threads>, W, all_threads, true, true>(KEY_VALUES);                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) attention_query_gradient_sm90a_##W(                   \
        bf16 *dq, i64 dq_stride, const bf16 *dout, i64 dout_stride, const float *sums, const float *delta,             \
        const bf16 *q, i64 q_stride, const bf16 *k, i64 k_stride, const bf16 *v, i64 v_stride, ATTENTION_ARGUMENTS) {  \
        query_gradient<HopperTile<W, all_threads>, W, all_threads>(                                                    \
            dq, dq_stride, dout, dout_stride, sums, delta, q, q_stride, k, k_stride, v, v_stride, ATTENTION);          \
    }
DEFINE(64)
DEFINE(128)
