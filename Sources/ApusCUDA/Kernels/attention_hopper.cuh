#pragma once
// Tiles for the attention kernels on Hopper: the interface of attention_tiles.cuh's `Tile`, with wgmma for its
// products.
//
// A tile is panels of 64 columns, rows of 128 bytes with swizzled chunks. Read along its columns it is a k-major
// operand of scores, read along its rows the mn-major right operand of sums: one copy serves both. What a warp holds of
// a result is what mma.sync gives it, so the kernels are the same; four warps together own 64 rows.

#include "attention_tiles.cuh"
#include "hopper.cuh"

#define D(i) "+f"(d[i])

/// d (64, 64) += a (64, 16) b (16, 64), both k-major in shared memory.
inline void multiply_async_64(float (&d)[32], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1, 1, 1, 0, 0;"
                 :
                 D(0), D(1), D(2), D(3), D(4), D(5), D(6), D(7),
                 D(8), D(9), D(10), D(11), D(12), D(13), D(14), D(15),
                 D(16), D(17), D(18), D(19), D(20), D(21), D(22), D(23),
                 D(24), D(25), D(26), D(27), D(28), D(29), D(30), D(31)
                 : "l"(a), "l"(b));
}
#define D(i) "+f"(d[i])

/// d (64, 64) += a (64, 16) b (16, 64), a in registers as mma.sync has it, b mn-major in shared memory.
inline void multiply_async(float (&d)[32], const u32 (&a)[4], u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 :
                 D(0), D(1), D(2), D(3), D(4), D(5), D(6), D(7),
                 D(8), D(9), D(10), D(11), D(12), D(13), D(14), D(15),
                 D(16), D(17), D(18), D(19), D(20), D(21), D(22), D(23),
                 D(24), D(25), D(26), D(27), D(28), D(29), D(30), D(31)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
/// d (64, 128) += a (64, 16) b (16, 128), a in registers as mma.sync has it, b mn-major in shared memory.
inline void multiply_async(float (&d)[64], const u32 (&a)[4], u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 :
                 D(0), D(1), D(2), D(3), D(4), D(5), D(6), D(7),
                 D(8), D(9), D(10), D(11), D(12), D(13), D(14), D(15),
                 D(16), D(17), D(18), D(19), D(20), D(21), D(22), D(23),
                 D(24), D(25), D(26), D(27), D(28), D(29), D(30), D(31),
                 D(32), D(33), D(34), D(35), D(36), D(37), D(38), D(39),
                 D(40), D(41), D(42), D(43), D(44), D(45), D(46), D(47),
                 D(48), D(49), D(50), D(51), D(52), D(53), D(54), D(55),
                 D(56), D(57), D(58), D(59), D(60), D(61), D(62), D(63)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef D

/// Of `threads` threads, which own threads / 2 rows; a tile that is walked has 64.
template <int W, int threads> struct HopperTile {
    static constexpr int walked = 64, buffers = 2, owned = threads / 2, chunks = W / 8, apart = threads / chunks;
    static constexpr int bytes(int rows) { return rows * W * 2; }
    /// Dynamic shared memory begins anywhere; panels on multiples of 1024 bytes.
    static char *aligned(char *memory) { return memory + (1024 - (shared_address(memory) & 1023)) % 1024; }

    static u32 place(int rows, int row, int chunk) {
        return chunk / 8 * rows * 128 + row * 128 + ((chunk ^ row) & 7) * 16;
    }

    /// What this thread's copies brought becomes visible to the tensor cores; a barrier must follow.
    static void publish() { fence_async(); }

    template <class Source> static void copy(u32 to, int rows, i64 width, bool vector, Source source) {
        const int chunk = threadIdx.x % chunks;
#pragma unroll 2
        for (int row = threadIdx.x / chunks; row < rows; row += apart) {
            const bf16 *from = source(row);
            const i64 left = from ? width - chunk * 8 : 0;
            copy_chunk(to + place(rows, row, chunk), left > 0 ? from + chunk * 8 : nullptr, left, vector || left <= 0);
        }
    }

    template <int rows> static void copy_run(u32 to, const bf16 *from, i64 stride, int valid, i64 width, bool vector) {
        const int chunk = threadIdx.x % chunks, first = threadIdx.x / chunks;
        if (!vector) {
            copy(to, rows, width, false, [&](int row) { return row < valid ? from + row * stride : nullptr; });
            return;
        }
        const i64 left = width - chunk * 8;
        const u32 bytes = left <= 0 ? 0 : left >= 8 ? 16 : (u32)left * 2;
        const bf16 *at = from + first * stride + chunk * 8;
        // The rows of a thread are a multiple of 8 apart: the swizzle is the same in each.
        u32 address = to + place(rows, first, chunk);
#pragma unroll
        for (int i = 0; i < rows / apart; ++i) {
            const bool is_valid = first + i * apart < valid && bytes > 0;
            copy_async(address, is_valid ? at : nullptr, is_valid ? bytes : 0);
            at += apart * stride;
            address += apart * 128;
        }
    }

    /// c (16 rows of the warp, 64) += a b^T over W: the owned tile a by the walked tile b.
    template <int tiles, int> static void multiply_transposed(float (&c)[tiles][8][4], u32 a, int row, u32 b) {
        a += row / 64 * 64 * 128;
        multiply_fence();
#pragma unroll
        for (int k = 0; k < W / 16; ++k) {
            const u32 at = k % 4 * 32;
            multiply_async_64((float (&)[32])c, describe(a + k / 4 * owned * 128 + at, 16, 1024),
                              describe(b + k / 4 * 64 * 128 + at, 16, 1024));
        }
        finish((float (&)[32])c);
    }

    /// c (16 rows of the warp, W) += p b, b the walked tile.
    template <int tiles> static void multiply(float (&c)[tiles][W / 8][4], const Rounded<walked> (&p)[tiles], u32 b) {
        multiply_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const u32 left[4] = {
                p[0].pairs[2 * k][0], p[0].pairs[2 * k][1], p[0].pairs[2 * k + 1][0], p[0].pairs[2 * k + 1][1]};
            multiply_async((float (&)[W / 2])c, left, describe(b + k * 2048, 64 * 128, 1024));
        }
        finish((float (&)[W / 2])c);
    }

    template <int count> static void finish(float (&c)[count]) {
        multiply_commit();
        multiply_wait<0>();
#pragma unroll
        for (int i = 0; i < count; ++i) asm volatile("" : "+f"(c[i])::"memory");
    }
};
