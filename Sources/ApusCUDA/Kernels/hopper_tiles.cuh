#pragma once
// What the products of Hopper share: a ring of stages that one thread fills by bulk tensor copies, two groups of 128 threads
// that multiply 64 rows each in 128 registers, and panels through which a group writes its result by bulk stores.
//
// Tiles of 128 x 256 x 64; four stages of 48 KB. A group releases a stage when the next one's products are under way, and
// one group may write while the other multiplies. Launch: 384 threads, 232,448 bytes of shared memory.

#include "hopper.cuh"

constexpr int tile_m = 128, tile_n = 256, tile_k = 64, stages = 4, all_threads = 384, most_experts = 256;
constexpr u32 panel_bytes = 64 * 128, a_bytes = 2 * panel_bytes, b_bytes = 4 * panel_bytes;
constexpr u32 stage_bytes = a_bytes + b_bytes;

/// Shared memory, in order: stages, two output panels a group, barriers, then the experts' offsets and first tiles.
struct Memory {
    u32 ring, panels, full, empty;
    i32 *offsets, *first_tile;

    explicit Memory(char *base) {
        ring = shared_address(base);
        panels = ring + stages * stage_bytes;
        full = panels + 4 * panel_bytes;
        empty = full + stages * 8;
        offsets = (i32 *)(base + stages * stage_bytes + 4 * panel_bytes + 2 * stages * 8);
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

/// Readies barriers and copies the offsets; `tiles(rows)` is the number of tiles of an expert with that many rows.
template <class Tiles> inline void begin(const Memory &memory, const i32 *offsets, i64 experts, Tiles tiles) {
    for (i64 e = threadIdx.x; e <= experts; e += all_threads) memory.offsets[e] = offsets[e];
    if (threadIdx.x == 0) {
        for (int s = 0; s < stages; ++s) {
            barrier_init(memory.full + s * 8, 1);
            barrier_init(memory.empty + s * 8, 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        i32 sum = 0;
        for (i64 e = 0; e < experts; ++e) {
            memory.first_tile[e] = sum;
            sum += tiles(memory.offsets[e + 1] - memory.offsets[e]);
        }
        memory.first_tile[experts] = sum;
    }
    __syncthreads();
}

/// Multiplies `blocks` blocks of 64 k as they arrive; `ready(stage address, block)` runs before a block is multiplied.
template <int a_mn, int b_mn, class Ready>
inline void multiply(float (&sum)[128], const Memory &memory, Place &place, i32 blocks, int group, Ready ready) {
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
            if (threadIdx.x % 128 == 0) barrier_arrive(memory.empty + before * 8);
        }
        before = place.stage;
        place.advance();
    }
    multiply_wait<0>();
    // The registers belong to the tensor cores until here; the compiler must not read them earlier.
#pragma unroll
    for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(sum[i])::"memory");
    if (blocks > 0 && threadIdx.x % 128 == 0) barrier_arrive(memory.empty + before * 8);
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

    /// 64 columns of bf16 from column 64 p of the result; a lane gives the rows of four 8 x 8 matrices, chunks
    /// swizzled.
    void fill(u32 panel, int p, const float (&sum)[128], bf16) const {
        const u32 row = panel + (warp * 16 + lane % 16) * 128;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const float *at = sum + p * 32 + c * 8;
            const u32 place = row + ((2 * c + lane / 16) ^ (lane % 8)) * 16;
            store_matrices(place, bf16_pair(at[0], at[1]), bf16_pair(at[2], at[3]), bf16_pair(at[4], at[5]),
                           bf16_pair(at[6], at[7]));
        }
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
