#pragma once
// What the products of Hopper share: a ring of stages that one thread fills by bulk tensor copies, two groups of 128 threads
// that multiply 64 rows each in 128 registers, and panels through which a group writes its result by bulk stores.
//
// Tiles of 128 x 256 x 64; stages of 48 KB. A group releases a stage when the next one's products are under way, and
// one group may write while the other multiplies. Launch: 384 threads, 232,448 bytes of shared memory.

#include "grouped_tiles.cuh"
#include "hopper.cuh"

// How the shared memory is divided: stages of the ring, and panels of results. A file that divides it otherwise says so
// before.
#ifndef RING_STAGES
#define RING_STAGES 4
#define RESULT_PANELS 4
#endif

constexpr int tile_m = 128, tile_n = 256, tile_k = 64, stages = RING_STAGES, all_threads = 384, most_experts = 256;
constexpr u32 panel_bytes = 64 * 128, a_bytes = 2 * panel_bytes, b_bytes = 4 * panel_bytes;
constexpr u32 stage_bytes = a_bytes + b_bytes;
/// Warps that multiply; each says for itself that it is done with a stage.
constexpr int consumers = 8;

/// Shared memory, in order: stages, panels of results, barriers (four for other uses), then the experts' offsets and
/// first tiles.
struct Memory {
    u32 ring, panels, full, empty, others;
    i32 *offsets, *first_tile;

    explicit Memory(char *base) {
        ring = shared_address(base);
        panels = ring + stages * stage_bytes;
        full = panels + RESULT_PANELS * panel_bytes;
        empty = full + stages * 8;
        others = empty + stages * 8;
        offsets = (i32 *)(base + (others + 4 * 8 - ring));
        first_tile = offsets + most_experts + 1;
    }
};

/// A stage of the ring and the parity of its turn.
struct Place {
    int stage = 0;
    u32 parity = 0;
    void advance() {
        if (++stage == stages) stage = 0, parity ^= 1;
    }
};

/// Readies the barriers of the stages, which `bringers` threads fill; the block must meet before it uses them.
inline void init_barriers(const Memory &memory, int bringers = 1) {
    if (threadIdx.x > 0) return;
    for (int s = 0; s < stages; ++s) {
        barrier_init(memory.full + s * 8, bringers);
        barrier_init(memory.empty + s * 8, consumers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Readies barriers and copies the offsets; `tiles(rows)` is the number of tiles of an expert with that many rows.
template <class Tiles>
inline void begin(const Memory &memory, const i32 *offsets, i64 experts, Tiles tiles, int bringers = 1) {
    for (i64 e = threadIdx.x; e <= experts; e += all_threads) memory.offsets[e] = offsets[e];
    init_barriers(memory, bringers);
    __syncthreads();
    if (threadIdx.x < 32) {
        const i32 each = (i32)(experts + 31) / 32, from = threadIdx.x * each, to = min((i32)experts, from + each);
        i32 mine = 0;
        for (i32 e = from; e < to; ++e) mine += tiles(memory.offsets[e + 1] - memory.offsets[e]);
        i32 upto = mine;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const i32 other = __shfl_up_sync(all_lanes, upto, step);
            if (threadIdx.x >= step) upto += other;
        }
        i32 sum = upto - mine;
        for (i32 e = from; e < to; ++e) {
            memory.first_tile[e] = sum;
            sum += tiles(memory.offsets[e + 1] - memory.offsets[e]);
        }
        if (threadIdx.x == 31) memory.first_tile[experts] = upto;
    }
    __syncthreads();
}

/// This warp has read what it needed of a stage.
inline void release(const Memory &memory, int stage) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(memory.empty + stage * 8);
}

/// Multiplies `blocks` blocks of 64 k as they arrive; `ready(stage address, block)` runs before a block is multiplied,
/// and may find that it is the last: `blocks` is read again after it.
template <int a_mn, int b_mn, class Ready>
inline void multiply(float (&sum)[128], const Memory &memory, Place &place, const i32 &blocks, int group, Ready ready) {
    int before = 0;
    for (i32 block = 0; block < blocks; ++block) {
        barrier_wait(memory.full + place.stage * 8, place.parity);
        const u32 stage = memory.ring + place.stage * stage_bytes;
        ready(stage, block);
        multiply_fence();
        // mn-major panels are 8192 bytes apart and 16 k are 16 rows of 128 bytes; k-major, 16 k are 32 bytes along the
        // row.
        const u64 a = describe(stage + group * panel_bytes, a_mn ? panel_bytes : 16, 1024);
        const u64 b = describe(stage + a_bytes, b_mn ? panel_bytes : 16, 1024);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            multiply_async<a_mn, b_mn>(
                sum, a + k * (a_mn ? 2048 : 32) / 16, b + k * (b_mn ? 2048 : 32) / 16, (block | k) != 0);
        }
        multiply_commit();
        if (block > 0) {
            multiply_wait<1>();
            release(memory, before);
        }
        before = place.stage;
        place.advance();
    }
    multiply_wait<0>();
    // The registers belong to the tensor cores until here; the compiler must not read them earlier.
#pragma unroll
    for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(sum[i])::"memory");
    if (blocks > 0) release(memory, before);
}

/// Zeroes the rows of a stage from `rows` on, of both operands, when both are mn-major: they are another expert's, or
/// anything. Both groups call it, each for its half.
inline void clear_rows(u32 stage, i32 rows, int group) {
    for (i32 i = rows * 8 + threadIdx.x % 128; i < tile_k * 8; i += 128) {
        for (int p = 0; p < 3; ++p) {
            const int panel = p == 0 ? group : 2 + group * 2 + p - 1;
            const u32 chunk = stage + panel * panel_bytes + i * 16;
            asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(chunk), "r"(0) : "memory");
        }
    }
    fence_async();
    named_barrier(3, 256);
}

/// A group's threads and where each writes its part of a panel of 64 rows of 128 bytes.
struct Writer {
    int group, thread, warp, lane;
    u32 panels;

    explicit Writer(const Memory &memory)
        : group(threadIdx.x / 128 - 1), thread(threadIdx.x % 128), warp(thread / 32), lane(thread % 32),
          panels(memory.panels + group * 2 * panel_bytes) {}

    /// Fills panel after panel and stores each, two under way at a time: `fill(panel address, number)`, `store(address,
    /// number)`.
    template <int count, class Fill, class Store> void write(Fill fill, Store store) const {
#pragma unroll
        for (int p = 0; p < count; ++p) {
            const u32 panel = panels + p % 2 * panel_bytes;
            if (thread == 0) wait_stores<1>();
            named_barrier(1 + group, 128);
            fill(panel, p);
            fence_async();
            named_barrier(1 + group, 128);
            if (thread == 0) store(panel, p);
        }
    }

    /// 64 columns of bf16; a lane gives the rows of four 8 x 8 matrices, chunks swizzled. Of its values, `value(i)`, i
    /// from 8 c on are those of columns 16 c on, as in 32 of the sums.
    template <class Value> void fill(u32 panel, Value value) const {
        const u32 row = panel + (warp * 16 + lane % 16) * 128;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const int i = c * 8;
            const u32 place = row + ((2 * c + lane / 16) ^ (lane % 8)) * 16;
            store_matrices(place, bf16_pair(value(i), value(i + 1)), bf16_pair(value(i + 2), value(i + 3)),
                           bf16_pair(value(i + 4), value(i + 5)), bf16_pair(value(i + 6), value(i + 7)));
        }
    }

    /// 64 columns of bf16 from column 64 p of the result.
    void fill(u32 panel, int p, const float (&sum)[128], bf16) const {
        fill(panel, [&](int i) { return sum[p * 32 + i]; });
    }

    /// 32 columns of f32 from column 32 p.
    void fill(u32 panel, int p, const float (&sum)[128], float) const {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int row = warp * 16 + lane / 4 + 8 * h, chunk = c * 2 + lane % 4 / 2;
                const u32 at = panel + row * 128 + (chunk ^ (row % 8)) * 16 + lane % 2 * 8;
                const float *pair = sum + p * 16 + c * 4 + 2 * h;
                asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(pair[0]), "f"(pair[1]) : "memory");
            }
        }
    }
};

/// Calls `body(expert, row tile, column tile)` for the tiles of this block.
template <class Body> inline void each_tile(const Memory &memory, i64 experts, i32 columns, Body body) {
    i32 expert = 0;
    for (i32 tile = blockIdx.x; tile < memory.first_tile[experts]; tile += gridDim.x) {
        while (tile >= memory.first_tile[expert + 1]) ++expert;
        const i32 local = tile - memory.first_tile[expert];
        const i32 rows = (memory.first_tile[expert + 1] - memory.first_tile[expert]) / columns;
        const i32 band = local / (raster_rows * columns), within = local - band * raster_rows * columns;
        const i32 band_rows = min(raster_rows, rows - band * raster_rows);
        body(expert, band * raster_rows + within % band_rows, within / band_rows);
    }
}

/// Brings the blocks of k of one tile of `out = op(weights) x`: 128 rows of x from `row` on, and 256 columns of the result.
/// With transposed weights, stored (columns, k), these are two times 128 of their rows, from `first` and from `second` on;
/// else, stored (k, columns), the columns from `first` on of the rows from `second` on.
template <bool transposed>
inline void bring(
    const Memory &memory, Place &place, const TensorMap &x, const TensorMap &weights, i32 blocks, i32 row, i32 first,
    i32 second) {
    for (i32 block = 0; block < blocks; ++block) {
        barrier_wait(memory.empty + place.stage * 8, place.parity ^ 1);
        const u32 a = memory.ring + place.stage * stage_bytes, b = a + a_bytes, full = memory.full + place.stage * 8;
        barrier_expect(full, stage_bytes);
        copy_box(a, x, block * tile_k, row, full);
        if (transposed) {
            copy_box(b, weights, block * tile_k, first, full);
            copy_box(b + 2 * panel_bytes, weights, block * tile_k, second, full);
        } else {
            for (int panel = 0; panel < 4; ++panel) {
                copy_box(b + panel * panel_bytes, weights, first + panel * 64, second + block * tile_k, full);
            }
        }
        place.advance();
    }
}
