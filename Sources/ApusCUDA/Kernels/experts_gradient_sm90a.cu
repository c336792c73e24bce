// The data gradient of gated experts' second product with the activation's gradient behind it, on Hopper: with
// g = dy W2, of which nothing is stored, and weight w of the row,
//   pre = [w g up silu'(gate) | w g silu(gate)], in place of the gate and up that it held,
//   hidden = w silu(gate) up, again, for the gradient of W2,
//   dots[r, j] = the sum over columns 64 j to 64 j + 63 of g silu(gate) up, parts of the gradient of w.
// See Ops/GatedExperts.swift.
//
// The pipeline is that of grouped_sm90a.cu with three stages. A group that multiplied rounds its 64 x 256 sums to four panels
// and goes on; the three warps that have nothing to bring take panel after panel in turn, read gate and up from memory, and
// write from registers. They have a tile's time for a tile's eight panels. A bulk store would need a fence, which waits for
// the loads that were sent ahead.
//
// Floor: 2 R F K operations at the tensor cores' rate; dy and the weights once, 2 R F read and 3 R F written. Launch: as many
// blocks as multiprocessors, 384 threads, 232,448 bytes of shared memory. Needs sm_90a, extents and strides of multiples of 8
// elements, E at most 256. Tensor maps as in grouped_sm90a.cu:
//   dy        (R, K): box {64, 128}
//   weights   (E K, F): box {64, 64}

// Four panels of sums for each group.
#define RING_STAGES 3
#define RESULT_PANELS 8

#include "hopper_tiles.cuh"

constexpr int writers = 3, rows_at_once = 16, turns = rows_at_once / 4;

/// By the fast exponential and reciprocal, whose errors are far below that of bf16.
inline float logistic(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

inline uint4 load_chunk(u32 address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
    return v;
}
/// What is read once and overwritten need not stay in a cache.
inline uint4 load_once(const bf16 *p) {
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
    return v;
}

/// Eight elements of a row: what is multiplied with what.
struct Chunk {
    uint4 gate, up;
    float weight;
};

/// What the kernel reads and writes besides the operands of the product.
struct Rows {
    bf16 *pre, *hidden;
    i64 hidden_stride;
    const float *weights;
    float *dots;
    i32 width, dot_columns;
};

/// One of the warps behind the product.
struct Gradient {
    const Rows &rows;
    int lane = threadIdx.x % 32;

    explicit Gradient(const Rows &rows) : rows(rows) {}

    /// Gate and up of a row's eight elements from `column` on; zeros where there are none.
    void load(Chunk &chunk, i64 row, i32 column, bool exists) const {
        chunk = {};
        if (!exists) return;
        const bf16 *gate = rows.pre + row * 2 * rows.width + column;
        chunk.gate = load_once(gate);
        chunk.up = load_once(gate + rows.width);
        chunk.weight = rows.weights ? rows.weights[row] : 1.0f;
    }

    void load(Chunk (&chunks)[turns], i64 row, i32 column, i32 left) const {
#pragma unroll
        for (int i = 0; i < turns; ++i) {
            const int at = i * 4 + lane / 8;
            load(chunks[i], row + at, column + lane % 8 * 8, at < left && column + lane % 8 * 8 < rows.width);
        }
    }

    /// A panel of g, of which `left` rows exist from `row` on; waits until it is there.
    template <class Wait> void write(u32 panel, i64 row, i32 column, i32 left, Wait wait) const {
        Chunk chunks[turns], next[turns];
        load(chunks, row, column, left);
        wait();
#pragma unroll 1
        for (int first = 0; first < 64; first += rows_at_once) {
            if (first + rows_at_once < 64) load(next, row + first + rows_at_once, column, left - first - rows_at_once);
#pragma unroll
            for (int i = 0; i < turns; ++i) {
                turn(chunks[i], panel + first * 128, i * 4 + lane / 8, row + first, column, left - first);
            }
#pragma unroll
            for (int i = 0; i < turns; ++i) chunks[i] = next[i];
        }
    }

    /// Row `at` of sixteen, of which `left` exist; eight lanes have a row.
    void turn(const Chunk &chunk, u32 panel, int at, i64 first, i32 column, i32 left) const {
        const uint4 sums = load_chunk(panel + at * 128 + (lane % 8 ^ at % 8) * 16);
        const u32 *g = &sums.x, *gate = &chunk.gate.x, *up = &chunk.up.x;
        uint4 dgate, dup, hidden;
        float dot = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float a[2], b[2], c[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float x = h ? pair_high(gate[j]) : pair_low(gate[j]), u = h ? pair_high(up[j]) : pair_low(up[j]);
                const float d = h ? pair_high(g[j]) : pair_low(g[j]), weighted = d * chunk.weight;
                const float s = logistic(x), silu = x * s, slope = s + silu * (1.0f - s), activated = silu * u;
                dot += d * activated;
                a[h] = weighted * u * slope;
                b[h] = weighted * silu;
                c[h] = activated * chunk.weight;
            }
            (&dgate.x)[j] = bf16_pair(a[0], a[1]);
            (&dup.x)[j] = bf16_pair(b[0], b[1]);
            (&hidden.x)[j] = bf16_pair(c[0], c[1]);
        }
#pragma unroll
        for (int step = 1; step < 8; step *= 2) dot += __shfl_xor_sync(all_lanes, dot, step);
        const i64 row = first + at;
        if (at < left && lane % 8 == 0 && rows.dots) rows.dots[row * rows.dot_columns + column / 64] = dot;
        const i32 own = column + lane % 8 * 8;
        if (at >= left || own >= rows.width) return;
        bf16 *to = rows.pre + row * 2 * rows.width + own;
        *(uint4 *)to = dgate;
        *(uint4 *)(to + rows.width) = dup;
        *(uint4 *)(rows.hidden + row * rows.hidden_stride + own) = hidden;
    }
};

extern "C" __global__ void __launch_bounds__(all_threads, 1) experts_backward_sm90a(
    const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap weights, bf16 *pre, bf16 *hidden,
    i64 hidden_stride, const i32 *offsets, const float *row_weights, float *dots, i64 experts, i64 width, i64 k) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    // Of each group: the panels hold sums; they are free again.
    const u32 ready = memory.others, free = ready + 16;
    if (threadIdx.x == 0) {
        for (int group = 0; group < 2; ++group) {
            barrier_init(ready + group * 8, 128);
            barrier_init(free + group * 8, 4);
        }
    }
    const i32 columns = (i32)(width + tile_n - 1) / tile_n, blocks = (i32)(k + tile_k - 1) / tile_k;
    begin(memory, offsets, experts, [&](i32 rows) { return (rows + tile_m - 1) / tile_m * columns; });
    Place place;
    u32 parity = 0;
    if (threadIdx.x < 32) {
        if (threadIdx.x > 0) return;
        each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
            bring<false>(memory, place, dy, weights, blocks, memory.offsets[expert] + row_tile * tile_m,
                         column_tile * tile_n, expert * (i32)k);
        });
        return;
    }
    if (threadIdx.x < 128) {
        const Rows rows = {pre, hidden, hidden_stride, row_weights, dots, (i32)width, (i32)(width + 63) / 64};
        const Gradient gradient(rows);
        int turn = threadIdx.x / 32 - 1;
        each_tile(memory, experts, columns, [&](i32 expert, i32 row_tile, i32 column_tile) {
            for (int number = turn; number < 8; number += writers) {
                const int group = number / 4;
                const i32 row = memory.offsets[expert] + row_tile * tile_m + group * 64;
                const i32 column = column_tile * tile_n + number % 4 * 64, left = memory.offsets[expert + 1] - row;
                const auto wait = [&] { barrier_wait(ready + group * 8, parity); };
                if (left > 0 && column < rows.width) {
                    gradient.write(memory.panels + number * panel_bytes, row, column, min(left, 64), wait);
                } else {
                    wait();
                }
                if (gradient.lane == 0) barrier_arrive(free + group * 8);
            }
            // Eight panels, three warps: another begins the next tile.
            turn = (turn + 1) % writers;
            parity ^= 1;
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(memory, experts, columns, [&](i32, i32, i32) {
        multiply<0, 1>(sum, memory, place, blocks, writer.group, [](u32, i32) {});
        barrier_wait(free + writer.group * 8, parity ^ 1);
#pragma unroll
        for (int p = 0; p < 4; ++p) {
            writer.fill(memory.panels + (writer.group * 4 + p) * panel_bytes, p, sum, bf16());
        }
        barrier_arrive(ready + writer.group * 8);
        parity ^= 1;
    });
}
