// The grouped products of grouped_bf16.cu on Hopper's own tensor instructions: same operands, pre-gathered rows.
//
// Tiles of 128 x 256 x 64. Of 384 threads, one brings blocks of both operands by bulk tensor copies through a ring of
// four stages (4 x 48 KB), and two groups of 128 multiply them, each 64 rows in 128 registers, and release a stage when
// the next one's products are under way. A group writes its result through two panels of 64 x 64 and bulk stores, so
// that one group may write while the other multiplies. A persistent grid walks tiles expert by expert, 8 tiles of rows
// to a strip of columns. Three warps have nothing to do for the product; two kernels have rows moved by them that are not the
// product's, which takes a third of the time of a launch of its own.
//
// Floor as in grouped_bf16.cu, at the whole rate of the tensor cores. Launch: as many blocks as multiprocessors, 384
// threads, 232,448 bytes of shared memory. Needs sm_90a, extents and strides of multiples of 8 elements, E at most 256.
// Tensor maps (cuTensorMapEncodeTiled: bf16, 2-D, dims {columns, rows}, 128-byte swizzle, 256-byte L2 promotion,
// element strides 1):
//   rows      (R, K) of x: box {64, 128}; for the weight gradient dy (R, N) and x (R, K): box {64, 64}
//   weights   (E N, K) when transposed: box {64, 128}; (E K, N) else: box {64, 64}
//   out       (R, N): box {64, 64}
//   gradient  (E, N, K), 3-D: box {64, 64, 1} for bf16, {32, 64, 1} for f32

#include "hopper_tiles.cuh"
#include "row_moves.cuh"

/// out[r] = op(weights[e]) x[r], as `grouped_product` of grouped_bf16.cu.
template <bool transposed, class Move = NoMove>
inline void grouped_product(
    const TensorMap &x, const TensorMap &weights, const TensorMap &out_map, bf16 *out, i64 out_stride,
    const i32 *offsets, i64 experts, i32 n, i32 k, const Move &move = {}) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    const i32 columns = (n + tile_n - 1) / tile_n, blocks = (k + tile_k - 1) / tile_k;
    begin(memory, offsets, experts, [&](i32 rows) { return (rows + tile_m - 1) / tile_m * columns; });
    Place place;
    if (threadIdx.x < 128) {
        if (threadIdx.x >= 32) move();
        if (threadIdx.x > 0) return;
        each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
            const i32 row = memory.offsets[expert] + row_tile * tile_m, column = column_tile * tile_n;
            const i32 weights_row = expert * (transposed ? n : k);
            bring<transposed>(memory, place, x, weights, blocks, row, transposed ? weights_row + column : column,
                              transposed ? weights_row + column + 128 : weights_row);
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
        const i32 row = memory.offsets[expert] + row_tile * tile_m + writer.group * 64, column = column_tile * tile_n;
        const i32 rows = memory.offsets[expert + 1] - row;
        multiply<0, transposed ? 0 : 1>(sum, memory, place, blocks, writer.group, [](u32, i32) {});
        if (rows >= 64) {
            writer.write<4>([&](u32 panel, int p) { writer.fill(panel, p, sum, bf16()); },
                            [&](u32 panel, int p) { store_box(out_map, column + p * 64, row, panel); });
            return;
        }
        // The last rows of an expert: the next expert's rows below are not ours to write.
#pragma unroll
        for (int j = 0; j < 32; ++j) {
            const i32 at = column + j * 8 + writer.lane % 4 * 2;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const i32 local = writer.warp * 16 + writer.lane / 4 + 8 * h;
                if (local < rows && at < n) {
                    const float *pair = sum + 4 * j + 2 * h;
                    *(u32 *)(out + (row + local) * out_stride + at) = bf16_pair(pair[0], pair[1]);
                }
            }
        }
    });
    if (writer.thread == 0) wait_stores<0>();
}

/// gradient[e] (N, K) (+)= dy[group]^T x[group], as `grouped_gradient` of grouped_bf16.cu. Both operands are mn-major: k
/// runs along the stored rows.
template <class T, class Move = NoMove>
inline void grouped_gradient(
    const TensorMap &dy, const TensorMap &x, const TensorMap &gradient, const i32 *offsets, i64 experts, i32 n, i32 k,
    bool adds, const Move &move = {}) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    const i32 columns = (k + tile_n - 1) / tile_n, row_tiles = (n + tile_m - 1) / tile_m;
    // Without a gradient to add to, that of an expert without rows is 0.
    begin(memory, offsets, experts, [&](i32 rows) { return rows > 0 || !adds ? row_tiles * columns : 0; });
    Place place;
    if (threadIdx.x < 128) {
        if (threadIdx.x >= 32) move();
        if (threadIdx.x > 0) return;
        each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
            for (i32 row = memory.offsets[expert]; row < memory.offsets[expert + 1]; row += tile_k) {
                barrier_wait(memory.empty + place.stage * 8, place.parity ^ 1);
                const u32 a = memory.ring + place.stage * stage_bytes, b = a + a_bytes;
                const u32 full = memory.full + place.stage * 8;
                barrier_expect(full, stage_bytes);
                for (int p = 0; p < 2; ++p) copy_box(a + p * panel_bytes, dy, row_tile * tile_m + p * 64, row, full);
                for (int p = 0; p < 4; ++p) copy_box(b + p * panel_bytes, x, column_tile * tile_n + p * 64, row, full);
                place.advance();
            }
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
        const i32 count = memory.offsets[expert + 1] - memory.offsets[expert], blocks = (count + tile_k - 1) / tile_k;
        multiply<1, 1>(sum, memory, place, blocks, writer.group, [&](u32 stage, i32 block) {
            // The rows after the expert's last are the next expert's, or anything: both operands' become 0.
            const i32 rows = count - block * tile_k;
            if (rows < tile_k) clear_rows(stage, rows, writer.group);
        });
        if (blocks == 0) {
#pragma unroll
            for (int i = 0; i < 128; ++i) sum[i] = 0;
        }
        const i32 row = row_tile * tile_m + writer.group * 64, column = column_tile * tile_n;
        constexpr int panel_columns = 128 / sizeof(T);
        writer.write<tile_n / panel_columns>(
            [&](u32 panel, int p) { writer.fill(panel, p, sum, T()); },
            [&](u32 panel, int p) {
                if (adds) {
                    add_box(gradient, column + p * panel_columns, row, expert, panel);
                } else {
                    store_box(gradient, column + p * panel_columns, row, expert, panel);
                }
            });
    });
    if (writer.thread == 0) wait_stores<0>();
}

#define DEFINE(name, transposed)                                                                                       \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) name(                                                 \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weights,                                \
        const __grid_constant__ TensorMap out_map, bf16 *out, i64 out_stride, const i32 *offsets, i64 experts, i64 n,  \
        i64 k) {                                                                                                       \
        grouped_product<transposed>(x, weights, out_map, out, out_stride, offsets, experts, (i32)n, (i32)k);           \
    }
DEFINE(grouped_transposed_sm90a, true)
DEFINE(grouped_sm90a, false)

#define DEFINE_GRADIENT(name, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) name(                                                 \
        const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap x,                                     \
        const __grid_constant__ TensorMap gradient, const i32 *offsets, i64 experts, i64 n, i64 k, i64 adds) {         \
        grouped_gradient<T>(dy, x, gradient, offsets, experts, (i32)n, (i32)k, adds);                                  \
    }
DEFINE_GRADIENT(grouped_gradient_sm90a_f32, float)
DEFINE_GRADIENT(grouped_gradient_sm90a_bf16, bf16)

/// out[r] = weights[e]^T x[r], and beside it copies[slot_to_row[t, k]] = tokens_in[t], rows of n elements.
extern "C" __global__ void __launch_bounds__(all_threads, 1) grouped_and_scatter_sm90a(
    const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weights,
    const __grid_constant__ TensorMap out_map, bf16 *out, i64 out_stride, const i32 *offsets, i64 experts, i64 n, i64 k,
    bf16 *copies, i64 copies_stride, const bf16 *tokens_in, i64 tokens_stride, const i32 *slot_to_row, i64 tokens,
    i64 choices) {
    grouped_product<false>(
        x, weights, out_map, out, out_stride, offsets, experts, (i32)n, (i32)k,
        ScatterMove{{copies, copies_stride, slot_to_row, tokens, choices, n}, tokens_in, tokens_stride});
}

/// gradient[e] (N, K) (+)= dy[group]^T x[group], and beside it y[t] (+)= the sum of a token's rows of k elements.
#define DEFINE_GRADIENT_AND_COMBINE(name, T)                                                                           \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) name(                                                 \
        const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap x,                                     \
        const __grid_constant__ TensorMap gradient, const i32 *offsets, i64 experts, i64 n, i64 k, i64 adds, bf16 *y,  \
        i64 y_stride, bf16 *rows, i64 rows_stride, const i32 *slot_to_row, i64 tokens, i64 choices,              \
        i64 y_adds) {                                                                                                  \
        grouped_gradient<T>(                                                                                           \
            dy, x, gradient, offsets, experts, (i32)n, (i32)k, adds,                                                   \
            CombineMove{{rows, rows_stride, slot_to_row, tokens, choices, k}, y, y_stride, y_adds});                     \
    }
DEFINE_GRADIENT_AND_COMBINE(gradient_and_combine_sm90a_f32, float)
DEFINE_GRADIENT_AND_COMBINE(gradient_and_combine_sm90a_bf16, bf16)
