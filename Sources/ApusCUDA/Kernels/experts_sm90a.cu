// The first product of gated experts with the activation in its epilogue, on Hopper: pre = x W1^T, of which the left half is
// the gate, and hidden[r] = weight[r] silu(gate) up, so that what follows needs no pass of its own. See
// Ops/GatedExperts.swift.
//
// Tiles are of 128 rows and 128 columns of the hidden: the 256 columns that are multiplied are 128 of the gate and the same
// 128 of up, and a thread then holds both of an element. The pipeline is that of grouped_sm90a.cu, the result six panels
// instead of four: two of the gate, two of up, two of the hidden.
//
// Floor: 4 R F K operations at the tensor cores' rate; x and the weights once, 3 R F written. Launch: as many blocks as
// multiprocessors, 384 threads, 232,448 bytes of shared memory. Needs sm_90a, extents and strides of multiples of 8
// elements, E at most 256. Tensor maps as in grouped_sm90a.cu:
//   x         (R, K): box {64, 128}
//   weights   (2 E F, K): box {64, 128}
//   pre       (R, 2, F), 3-D: box {64, 1, 64}
//   hidden    (R, F): box {64, 64}

#include "hopper_tiles.cuh"

/// By the fast exponential and reciprocal, whose errors are far below that of bf16.
inline float logistic(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

/// `pre` may be null; `row_weights` too, for ones.
template <bool keeps>
inline void experts_forward(
    const TensorMap &x, const TensorMap &weights, const TensorMap &pre_map, const TensorMap &hidden_map, bf16 *pre,
    bf16 *hidden, i64 hidden_stride, const i32 *offsets, const float *row_weights, i64 experts, i32 width, i32 k) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    const i32 columns = (width + 127) / 128, blocks = (k + tile_k - 1) / tile_k;
    begin(memory, offsets, experts, [&](i32 rows) { return (rows + tile_m - 1) / tile_m * columns; });
    Place place;
    if (threadIdx.x < 128) {
        if (threadIdx.x > 0) return;
        each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
            const i32 gate = expert * 2 * width + column_tile * 128;
            bring<true>(memory, place, x, weights, blocks, memory.offsets[expert] + row_tile * tile_m, gate, gate + width);
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
        multiply<0, 0>(sum, memory, place, blocks, writer.group, [](u32, i32) {});
        // After the product, during which every register is taken.
        const i32 row = memory.offsets[expert] + row_tile * tile_m + writer.group * 64, column = column_tile * 128;
        const i32 rows = memory.offsets[expert + 1] - row;
        const i32 local = writer.warp * 16 + writer.lane / 4;
        float weight[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            weight[h] = row_weights && local + 8 * h < rows ? row_weights[row + local + 8 * h] : 1.0f;
        }
        // Of four sums in turn, two are of one row and two of the row 8 below.
        const auto activated = [&](int i) {
            const float gate = sum[i];
            return gate * logistic(gate) * sum[64 + i] * weight[i / 2 % 2];
        };
        if (rows >= 64) {
            writer.write<keeps ? 6 : 2>(
                [&](u32 panel, int p) {
                    if (p < 2) {
                        writer.fill(panel, [&](int i) { return activated(p * 32 + i); });
                    } else {
                        writer.fill(panel, p - 2, sum, bf16());
                    }
                },
                [&](u32 panel, int p) {
                    if (p < 2) {
                        store_box(hidden_map, column + p * 64, row, panel);
                    } else {
                        store_box(pre_map, column + p % 2 * 64, p / 2 - 1, row, panel);
                    }
                });
            return;
        }
        // The last rows of an expert: the next expert's rows below are not ours to write.
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            const i32 at = column + j * 8 + writer.lane % 4 * 2;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                if (local + 8 * h >= rows || at >= width) continue;
                const int i = 4 * j + 2 * h;
                const i64 out = row + local + 8 * h;
                *(u32 *)(hidden + out * hidden_stride + at) = bf16_pair(activated(i), activated(i + 1));
                if (!keeps) continue;
                bf16 *gate = pre + out * 2 * width + at;
                *(u32 *)gate = bf16_pair(sum[i], sum[i + 1]);
                *(u32 *)(gate + width) = bf16_pair(sum[64 + i], sum[64 + i + 1]);
            }
        }
    });
    if (writer.thread == 0) wait_stores<0>();
}

#define DEFINE(name, keeps)                                                                                            \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) name(                                                 \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weights,                                \
        const __grid_constant__ TensorMap pre_map, const __grid_constant__ TensorMap hidden_map, bf16 *pre,            \
        bf16 *hidden, i64 hidden_stride, const i32 *offsets, const float *row_weights, i64 experts, i64 width,         \
        i64 k) {                                                                                                       \
        experts_forward<keeps>(                                                                                        \
            x, weights, pre_map, hidden_map, pre, hidden, hidden_stride, offsets, row_weights, experts, (i32)width,    \
            (i32)k);                                                                                                   \
    }
DEFINE(experts_forward_sm90a, true)
DEFINE(experts_forward_once_sm90a, false)
