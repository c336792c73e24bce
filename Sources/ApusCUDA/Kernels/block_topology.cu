// The topology of experts side by side, on the device: the dense rows offsets[e] ..< offsets[e + 1] have the block
// columns e n ..< (e + 1) n. See Ops/BlockSparse/BlockSparse.swift, `blockTopology`; MegaBlocks section 5.1.3.
//
// One launch: every array is a formula in the number of block rows before each expert, which each block sums for
// itself. Launch: ceil((M + 1) / 256) blocks of 256 threads, 4 (E + 1) bytes of shared memory, M the bound ceil(R / b)
// + E or less. It writes 2 P + 2 M + N words.

#include "reduce.cuh"

extern "C" __global__ void block_topology(
    i32 *column_indices, i32 *row_indices, i32 *row_offsets, i32 *column_offsets, i32 *transpose_indices,
    i32 *row_starts, const i32 *offsets, i64 experts, i64 blocks_per_expert, i64 block, i64 block_rows) {
    extern __shared__ i32 first[];
    const i64 n = blocks_per_expert;
    if (threadIdx.x < 32) {
        i32 before = 0;
        for (i64 e = threadIdx.x; e - threadIdx.x < experts; e += 32) {
            const i32 here = e < experts ? (i32)((offsets[e + 1] - offsets[e] + block - 1) / block) : 0;
            i32 upto = here;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const i32 other = __shfl_up_sync(all_lanes, upto, step);
                if (threadIdx.x >= step) upto += other;
            }
            if (e < experts) first[e] = before + upto - here;
            before += __shfl_sync(all_lanes, upto, 31);
        }
        if (threadIdx.x == 0) first[experts] = before;
    }
    __syncthreads();
    const i32 total = first[experts];
    const i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (row <= block_rows) {
        row_offsets[row] = (i32)(min(row, (i64)total) * n);
        if (row >= total) row_starts[row] = offsets[experts];
    }
    if (row < total && row < block_rows) {
        // The last expert that begins at or before this block row, empty ones skipped.
        i64 low = 0, high = experts;
        while (high - low > 1) {
            const i64 middle = (low + high) / 2;
            if (first[middle] <= row) low = middle;
            else high = middle;
        }
        const i64 within = row - first[low], rows = first[low + 1] - first[low];
        row_starts[row] = (i32)(offsets[low] + within * block);
        for (i64 j = 0; j < n; ++j) {
            column_indices[row * n + j] = (i32)(low * n + j);
            row_indices[row * n + j] = (i32)row;
            transpose_indices[first[low] * n + j * rows + within] = (i32)(row * n + j);
        }
    }
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 column = row; column <= experts * n; column += stride) {
        const i64 e = min(column / n, experts);
        const i64 rows = e < experts ? first[e + 1] - first[e] : 0;
        column_offsets[column] = (i32)(first[e] * n + (column - e * n) * rows);
    }
}
