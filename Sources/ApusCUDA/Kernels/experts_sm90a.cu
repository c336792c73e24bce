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

/// Row r of x is row r.
struct InOrder {
    const TensorMap &x;
    static constexpr int bringers = 1;

    /// The rows from `row` on, before `end`, and the rows of the weights from `gate` and from `up` on.
    void bring(const Memory &memory, Place &place, const TensorMap &weights, i32 k, i32 row, i32, i32 gate, i32 up) const {
        if (threadIdx.x > 0) return;
        ::bring<true>(memory, place, x, weights, (k + tile_k - 1) / tile_k, row, gate, up);
    }
    void ready() const {}
};

/// Row r of x is row index[r]. Eight threads have a row, 16 rows are copied at a time.
struct Picked {
    const bf16 *x;
    i64 stride;
    const i32 *index;
    static constexpr int bringers = 129;

    void bring(
        const Memory &memory, Place &place, const TensorMap &weights, i32 k, i32 row, i32 end, i32 gate, i32 up) const {
        const i32 local = threadIdx.x / 8, chunk = threadIdx.x % 8;
        const bf16 *from[tile_m / 16];
#pragma unroll
        for (int i = 0; i < tile_m / 16; ++i) {
            const i32 at = row + local + 16 * i, source = at < end ? index[at] : -1;
            from[i] = source < 0 ? nullptr : x + source * stride + chunk * 8;
        }
        for (i32 first = 0; first < k; first += tile_k) {
            barrier_wait(memory.empty + place.stage * 8, place.parity ^ 1);
            const u32 a = memory.ring + place.stage * stage_bytes, b = a + a_bytes, full = memory.full + place.stage * 8;
            if (threadIdx.x == 0) {
                barrier_expect(full, b_bytes);
                copy_box(b, weights, first, gate, full);
                copy_box(b + 2 * panel_bytes, weights, first, up, full);
            }
            const bool is_inside = first + chunk * 8 < k;
#pragma unroll
            for (int i = 0; i < tile_m / 16; ++i) {
                const bool exists = is_inside && from[i];
                copy_chunk(a + (local + 16 * i) * 128 + (chunk ^ local % 8) * 16, exists ? from[i] + first : x, exists);
            }
            arrive_with_chunks(full);
            place.advance();
        }
    }
    /// The tensor cores see what the copies of other threads wrote.
    void ready() const { fence_async(); }
};

/// `pre` may be null; `row_weights` too, for ones.
template <bool keeps, class Source>
inline void experts_forward(
    const Source &source, const TensorMap &weights, const TensorMap &pre_map, const TensorMap &hidden_map, bf16 *pre,
    bf16 *hidden, i64 hidden_stride, const i32 *offsets, const float *row_weights, i64 experts, i32 width, i32 k) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    const i32 columns = (width + 127) / 128, blocks = (k + tile_k - 1) / tile_k;
    begin(memory, offsets, experts, [&](i32 rows) { return (rows + tile_m - 1) / tile_m * columns; }, Source::bringers);
    Place place;
    if (threadIdx.x < 128) {
        each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
            const i32 gate = expert * 2 * width + column_tile * 128;
            source.bring(memory, place, weights, k, memory.offsets[expert] + row_tile * tile_m, memory.offsets[expert + 1],
                         gate, gate + width);
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
        multiply<0, 0>(sum, memory, place, blocks, writer.group, [&](u32, i32) { source.ready(); });
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
    extern "C" __global__ void __launch_bounds__(all_threads, 1) experts_forward##name##sm90a(                         \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weights,                                \
        const __grid_constant__ TensorMap pre_map, const __grid_constant__ TensorMap hidden_map, bf16 *pre,            \
        bf16 *hidden, i64 hidden_stride, const i32 *offsets, const float *row_weights, i64 experts, i64 width,         \
        i64 k) {                                                                                                       \
        experts_forward<keeps>(                                                                                        \
            InOrder{x}, weights, pre_map, hidden_map, pre, hidden, hidden_stride, offsets, row_weights, experts,       \
            (i32)width, (i32)k);                                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) experts_forward##name##picked_sm90a(                  \
        const bf16 *x, i64 x_stride, const i32 *rows, const __grid_constant__ TensorMap weights,                       \
        const __grid_constant__ TensorMap pre_map, const __grid_constant__ TensorMap hidden_map, bf16 *pre,            \
        bf16 *hidden, i64 hidden_stride, const i32 *offsets, const float *row_weights, i64 experts, i64 width,         \
        i64 k) {                                                                                                       \
        experts_forward<keeps>(                                                                                        \
            Picked{x, x_stride, rows}, weights, pre_map, hidden_map, pre, hidden, hidden_stride, offsets, row_weights, \
            experts, (i32)width, (i32)k);                                                                              \
    }
DEFINE(_, true)
DEFINE(_once_, false)
