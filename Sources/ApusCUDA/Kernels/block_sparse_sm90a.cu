// The products of block_sparse_bf16.cu on Hopper's own tensor instructions, for topologies whose block rows all have n
// blocks. See Ops/BlockSparse/BlockSparse.swift; MegaBlocks section 5.
//
// All values are then one matrix (M b, n b), which the copy engine reads and writes in boxes of 64 x 64, as it does the
// dense matrices; a block is found by where its box begins. Which columns a block row has is free: each panel of 64
// columns of a tile looks up its own block, so that a tile may span several and b be any multiple of 64.
//
// Tiles of 128 x 256 x 64 on the ring of hopper_tiles.cuh, on a persistent grid. With t = ceil(b / 128):
//   sdd   M t row tiles by ceil(n b / 256); k along Q
//   dsd   M t row tiles by ceil(Q / 256); k along the blocks of the block row, in order
//   dstd  N t column tiles of 128 by ceil(Q / 256); k along the dense rows of the block column's blocks, found through
//         the transpose index
// A tile ends with its block row or column: of blocks of 64 or 192 the second group's last half is computed for
// nothing.
//
// Floor: 2 P b b Q operations at the whole rate of the tensor cores, fed from L2 at 8 TB/s (48 KB for 4.2 MFLOP); dstd
// with few rows an expert is bound by the gradient, read and written. Launch: as many blocks as multiprocessors, 384
// threads, 232,448 bytes of shared memory. Needs sm_90a, and what tensor maps need: rows of multiples of 8 elements,
// 16-byte addresses. Maps (as in grouped_sm90a.cu), all boxes 64 rows of 128 bytes:
//   values  (M b, n b)
//   dense   (R, Q)
//   stack   as it is stored, 3-D

#include "block_sparse.cuh"
#include "hopper_tiles.cuh"

/// Beside the rows of a stage: it is the tile's last.
constexpr i32 is_last = 1 << 16;

inline i32 divide_up(i32 a, i32 b) { return (a + b - 1) / b; }

/// What is uniform in the topology, in registers.
struct Blocks {
    const Topology &topology;
    /// b, n, the block rows that are there, and the tiles of 128 along one side of a block.
    i32 size, per_row, rows, tiles;

    Blocks(const Topology &t, i64 per_row)
        : topology(t), size((i32)t.block), per_row((i32)per_row), rows((i32)(t.blocks() / per_row)),
          tiles(divide_up(size, tile_m)) {}
};

/// Up to 128 rows of a block row.
struct RowTile {
    /// The block row, the first of its rows, that row of the values and of the dense matrix, and how many of the dense
    /// rows from there on are the block row's.
    i32 row, first, value, dense, count;

    RowTile(const Blocks &blocks, i32 tile) {
        row = tile / blocks.tiles;
        first = (tile - row * blocks.tiles) * tile_m;
        value = row * blocks.size + first;
        dense = blocks.topology.row_starts[row] + first;
        count = blocks.topology.row_starts[row + 1] - dense;
    }
};

/// Where a stack has a sparse column.
struct StackPlace {
    i32 expert, within;
};
inline StackPlace find_column(i32 column, i32 width) { return {column / width, column % width}; }

/// Calls `body(row tile, column tile)` for the tiles of this block, bands of rows first.
template <class Body> inline void each_tile(i32 rows, i32 columns, Body body) {
    for (i32 tile = blockIdx.x; tile < rows * columns; tile += gridDim.x) {
        const i32 band = tile / (raster_rows * columns), within = tile - band * raster_rows * columns;
        const i32 band_rows = min(raster_rows, rows - band * raster_rows);
        body(band * raster_rows + within % band_rows, within / band_rows);
    }
}

/// Brings the next stage when it is free: `bring(address of a, of b, barrier)` starts the copies of its 48 KB.
template <class Bring> inline void fill_stage(const Memory &memory, Place &place, Bring bring) {
    barrier_wait(memory.empty + place.stage * 8, place.parity ^ 1);
    const u32 a = memory.ring + place.stage * stage_bytes, full = memory.full + place.stage * 8;
    barrier_expect(full, stage_bytes);
    bring(a, a + a_bytes, full);
    place.advance();
}

/// The box of a stack at a sparse column and a dense index.
template <bool transposed>
inline void copy_stack(u32 to, const TensorMap &stack, const StackPlace &at, i32 inner, i32 dense, u32 full) {
    const i32 within = at.within + inner;
    copy_box(to, stack, transposed ? within : dense, transposed ? dense : within, at.expert, full);
}

/// The blocks of `a b^T`, as `sdd` of block_sparse_bf16.cu; a as it stands.
template <bool b_transposed>
inline void sdd(
    const TensorMap &values, const TensorMap &a, const TensorMap &stack, i32 width, i32 q, const Blocks &blocks) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    init_barriers(memory);
    __syncthreads();
    const i32 row_tiles = blocks.rows * blocks.tiles, columns = divide_up(blocks.per_row * blocks.size, tile_n);
    const i32 steps = divide_up(q, tile_k);
    Place place;
    if (threadIdx.x < 128) {
        if (threadIdx.x > 0) return;
        each_tile(row_tiles, columns, [&](i32 row_tile, i32 column_tile) {
            const RowTile rows(blocks, row_tile);
            // Past the block row's last block: outside the stack, where boxes are zero.
            StackPlace at[4];
#pragma unroll
            for (int p = 0; p < 4; ++p) {
                const i32 column = column_tile * tile_n + p * 64, block = column / blocks.size;
                at[p] = {0, width};
                if (block < blocks.per_row) {
                    const i32 block_column = blocks.topology.column_indices[rows.row * blocks.per_row + block];
                    at[p] = find_column((block_column - block) * blocks.size + column, width);
                }
            }
            for (i32 k = 0; k < steps * tile_k; k += tile_k) {
                fill_stage(memory, place, [&](u32 to_a, u32 to_b, u32 full) {
                    for (int h = 0; h < 2; ++h) copy_box(to_a + h * panel_bytes, a, k, rows.dense + h * 64, full);
#pragma unroll
                    for (int p = 0; p < 4; ++p) {
                        copy_stack<b_transposed>(to_b + p * panel_bytes, stack, at[p], 0, k, full);
                    }
                });
            }
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(row_tiles, columns, [&](i32 row_tile, i32 column_tile) {
        const RowTile rows(blocks, row_tile);
        multiply<0, b_transposed ? 1 : 0>(sum, memory, place, steps, writer.group, [](u32, i32) {});
        // Half of 128 rows may be the next block row's.
        if (rows.first + writer.group * 64 >= blocks.size) return;
        const i32 count = rows.count - writer.group * 64;
        if (count < 64) {
#pragma unroll
            for (int i = 0; i < 128; ++i) {
                if (writer.warp * 16 + writer.lane / 4 + i / 2 % 2 * 8 >= count) sum[i] = 0;
            }
        }
        writer.write<4>(
            [&](u32 panel, int p) { writer.fill(panel, p, sum, bf16()); },
            [&](u32 panel, int p) {
                store_box(values, column_tile * tile_n + p * 64, rows.value + writer.group * 64, panel);
            });
    });
    if (writer.thread == 0) wait_stores<0>();
}

/// c (+)= S b, c (R, Q), as `dsd` of block_sparse_bf16.cu.
template <bool b_transposed>
inline void dsd(
    const TensorMap &c_map, bf16 *c, i64 c_stride, const TensorMap &values, const TensorMap &stack, i32 width, i32 q,
    bool adds, const Blocks &blocks) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    init_barriers(memory);
    __syncthreads();
    const i32 row_tiles = blocks.rows * blocks.tiles, columns = divide_up(q, tile_n);
    const i32 steps = blocks.per_row * blocks.size / tile_k;
    Place place;
    if (threadIdx.x < 128) {
        if (threadIdx.x > 0) return;
        each_tile(row_tiles, columns, [&](i32 row_tile, i32 column_tile) {
            const RowTile rows(blocks, row_tile);
            const i32 *columns_here = blocks.topology.column_indices + rows.row * blocks.per_row;
            for (i32 block = 0; block < blocks.per_row; ++block) {
                const StackPlace at = find_column(columns_here[block] * blocks.size, width);
                for (i32 k = 0; k < blocks.size; k += tile_k) {
                    fill_stage(memory, place, [&](u32 to_a, u32 to_b, u32 full) {
                        const i32 column = block * blocks.size + k;
                        for (int h = 0; h < 2; ++h) {
                            copy_box(to_a + h * panel_bytes, values, column, rows.value + h * 64, full);
                        }
#pragma unroll
                        for (int p = 0; p < 4; ++p) {
                            const i32 dense = column_tile * tile_n + p * 64;
                            copy_stack<b_transposed>(to_b + p * panel_bytes, stack, at, k, dense, full);
                        }
                    });
                }
            }
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(row_tiles, columns, [&](i32 row_tile, i32 column_tile) {
        const RowTile rows(blocks, row_tile);
        const i32 row = rows.dense + writer.group * 64, count = rows.count - writer.group * 64;
        const i32 column = column_tile * tile_n;
        multiply<0, b_transposed ? 0 : 1>(sum, memory, place, steps, writer.group, [](u32, i32) {});
        if (count >= 64 && !adds) {
            writer.write<4>([&](u32 panel, int p) { writer.fill(panel, p, sum, bf16()); },
                            [&](u32 panel, int p) { store_box(c_map, column + p * 64, row, panel); });
            return;
        }
        // Rows after the block row's are not ours to write; what is added to is read here, so that a sum is rounded
        // once.
        const i32 local = writer.warp * 16 + writer.lane / 4, at = column + writer.lane % 4 * 2;
        for (int h = 0; h < 2; ++h) {
            if (local + 8 * h >= count) break;
            bf16 *to = c + (row + local + 8 * h) * c_stride + at;
#pragma unroll
            for (int j = 0; j < 32; ++j) {
                if (at + j * 8 >= q) break;
                float low = h ? sum[4 * j + 2] : sum[4 * j], high = h ? sum[4 * j + 3] : sum[4 * j + 1];
                u32 *pair = (u32 *)(to + j * 8);
                if (adds) low += pair_low(*pair), high += pair_high(*pair);
                *pair = bf16_pair(low, high);
                // Four reads under way at a time: more would not fit in registers beside the sums.
                if (j % 4 == 3) asm volatile("" ::: "memory");
            }
        }
    });
    if (writer.thread == 0) wait_stores<0>();
}

/// Panel p of a result (64 sparse columns, 256 dense) stored transposed: 64 dense rows from 64 p.
inline void fill_transposed(const Writer &writer, u32 panel, int p, const float (&sum)[128], bf16) {
    // A lane gives a dense row of the matrices (8 sparse, 8 dense): two halves of 16 sparse columns, two of 16 rows.
    const u32 row = panel + (writer.lane / 16 * 8 + writer.lane % 8) * 128;
    const u32 place = row + ((writer.warp * 2 + writer.lane / 8 % 2) ^ (writer.lane % 8)) * 16;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
        const float *at = sum + p * 32 + c * 8;
        store_transposed(place + c * 16 * 128, bf16_pair(at[0], at[1]), bf16_pair(at[2], at[3]),
                         bf16_pair(at[4], at[5]), bf16_pair(at[6], at[7]));
    }
}

/// In f32 a panel has 32 sparse columns, those of two warps: 32 (p % 2) on, 64 dense rows from 64 (p / 2).
inline void fill_transposed(const Writer &writer, u32 panel, int p, const float (&sum)[128], float) {
    if (writer.warp / 2 != p % 2) return;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = j * 8 + writer.lane % 4 * 2 + i % 2;
            const int column = writer.warp % 2 * 16 + writer.lane / 4 + i / 2 * 8;
            const u32 at = panel + row * 128 + ((column / 4) ^ (row % 8)) * 16 + column % 4 * 4;
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(sum[p / 2 * 32 + j * 4 + i]) : "memory");
        }
    }
}

/// c (+)= S^T b, as `dstd` of block_sparse_bf16.cu; b as it stands. Both operands are mn-major: k runs along their
/// rows.
template <bool c_transposed, class T>
inline void dstd(
    const TensorMap &c, const TensorMap &values, const TensorMap &b, i32 width, i32 q, i32 block_columns, bool adds,
    const Blocks &blocks) {
    extern __shared__ __align__(1024) char base[];
    const Memory memory(base);
    init_barriers(memory);
    __syncthreads();
    const i32 column_tiles = block_columns * blocks.tiles, dense_tiles = divide_up(q, tile_n);
    // How many rows of each stage there are: the thread that brings them alone knows the topology.
    i32 *const notes = memory.offsets;
    Place place;
    constexpr int wide = 128 / sizeof(T);
    if (threadIdx.x < 128) {
        if (threadIdx.x > 0) return;
        each_tile(column_tiles, dense_tiles, [&](i32 column_tile, i32 dense_tile) {
            const i32 column = column_tile / blocks.tiles, first = (column_tile - column * blocks.tiles) * tile_m;
            const i32 dense = dense_tile * tile_n;
            const i32 begin = blocks.topology.column_offsets[column], end = blocks.topology.column_offsets[column + 1];
            if (begin == end) {
                barrier_wait(memory.empty + place.stage * 8, place.parity ^ 1);
                notes[place.stage] = is_last;
                barrier_arrive(memory.full + place.stage * 8);
                place.advance();
                return;
            }
            if (adds) {
                // What is added to comes to L2 while the tile is multiplied.
                const StackPlace at = find_column(column * blocks.size + first, width);
                const i32 extent = min(tile_m, blocks.size - first);
                for (i32 i = 0; i < extent; i += c_transposed ? wide : 64) {
                    for (i32 j = 0; j < tile_n; j += c_transposed ? 64 : wide) {
                        const i32 sparse = at.within + i;
                        prefetch_box(
                            c, c_transposed ? sparse : dense + j, c_transposed ? dense + j : sparse, at.expert);
                    }
                }
            }
            for (i32 i = begin; i < end; ++i) {
                const i32 p = blocks.topology.transpose_indices[i], row = p / blocks.per_row;
                const i32 start = blocks.topology.row_starts[row], count = blocks.topology.row_starts[row + 1] - start;
                const i32 value_column = (p - row * blocks.per_row) * blocks.size + first;
                const i32 limit = max(count, 1);
                for (i32 k = 0; k < limit; k += tile_k) {
                    const bool ends = i + 1 == end && k + tile_k >= limit;
                    barrier_wait(memory.empty + place.stage * 8, place.parity ^ 1);
                    notes[place.stage] = min(count - k, tile_k) | (ends ? is_last : 0);
                    fill_stage(memory, place, [&](u32 to_a, u32 to_b, u32 full) {
                        for (int h = 0; h < 2; ++h) {
                            copy_box(
                                to_a + h * panel_bytes, values, value_column + h * 64, row * blocks.size + k, full);
                        }
                        for (int p = 0; p < 4; ++p) {
                            copy_box(to_b + p * panel_bytes, b, dense + p * 64, start + k, full);
                        }
                    });
                }
            }
        });
        return;
    }
    const Writer writer(memory);
    float sum[128];
    each_tile(column_tiles, dense_tiles, [&](i32 column_tile, i32 dense_tile) {
        i32 steps = 1 << 30, seen = 0;
        multiply<1, 1>(sum, memory, place, steps, writer.group, [&](u32 stage, i32 step) {
            // Read by the lane that says when the stage is free.
            const i32 note = __shfl_sync(all_lanes, writer.lane == 0 ? notes[place.stage] : 0, 0);
            const i32 rows = note & (is_last - 1);
            if (note >= is_last) steps = step + 1;
            seen |= rows;
            if (rows < tile_k) clear_rows(stage, rows, writer.group);
        });
        const i32 column = column_tile / blocks.tiles, first = (column_tile - column * blocks.tiles) * tile_m;
        if (first + writer.group * 64 >= blocks.size || (adds && seen == 0)) return;
        const StackPlace at = find_column(column * blocks.size + first + writer.group * 64, width);
        const i32 dense = dense_tile * tile_n;
        auto put = [&](i32 sparse, i32 dense, u32 panel) {
            const i32 x = c_transposed ? sparse : dense, y = c_transposed ? dense : sparse;
            if (adds) {
                add_box(c, x, y, at.expert, panel);
            } else {
                store_box(c, x, y, at.expert, panel);
            }
        };
        if (c_transposed) {
            constexpr int halves = 64 / wide;
            writer.write<4 * halves>(
                [&](u32 panel, int p) { fill_transposed(writer, panel, p, sum, T()); },
                [&](u32 panel, int p) { put(at.within + p % halves * wide, dense + p / halves * 64, panel); });
        } else {
            writer.write<tile_n / wide>([&](u32 panel, int p) { writer.fill(panel, p, sum, T()); },
                                        [&](u32 panel, int p) { put(at.within, dense + p * wide, panel); });
        }
    });
    if (writer.thread == 0) wait_stores<0>();
}

/// Suffixes as in block_sparse_bf16.cu.
#define DEFINE_SDD(form, b_transposed)                                                                                 \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) sdd_##form##_sm90a(                                   \
        const __grid_constant__ TensorMap values, const __grid_constant__ TensorMap a,                                 \
        const __grid_constant__ TensorMap stack, i64 width, i64 q, i64 per_row, TOPOLOGY_ARGUMENTS) {                  \
        const Topology t = TOPOLOGY;                                                                                   \
        sdd<b_transposed>(values, a, stack, (i32)width, (i32)q, Blocks(t, per_row));                                   \
    }
DEFINE_SDD(n, false)
DEFINE_SDD(t, true)

#define DEFINE_DSD(form, b_transposed)                                                                                 \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) dsd_##form##_sm90a(                                   \
        const __grid_constant__ TensorMap c_map, bf16 *c, i64 c_stride, const __grid_constant__ TensorMap values,      \
        const __grid_constant__ TensorMap stack, i64 adds, i64 width, i64 q, i64 per_row, TOPOLOGY_ARGUMENTS) {        \
        const Topology t = TOPOLOGY;                                                                                   \
        dsd<b_transposed>(c_map, c, c_stride, values, stack, (i32)width, (i32)q, adds, Blocks(t, per_row));            \
    }
DEFINE_DSD(n, false)
DEFINE_DSD(t, true)

#define DEFINE_DSTD(form, c_transposed, suffix, T)                                                                     \
    extern "C" __global__ void __launch_bounds__(all_threads, 1) dstd_##form##_sm90a_##suffix(                         \
        const __grid_constant__ TensorMap c, const __grid_constant__ TensorMap values,                                 \
        const __grid_constant__ TensorMap b, i64 block_columns, i64 adds, i64 width, i64 q, i64 per_row,               \
        TOPOLOGY_ARGUMENTS) {                                                                                          \
        const Topology t = TOPOLOGY;                                                                                   \
        dstd<c_transposed, T>(                                                                                         \
            c, values, b, (i32)width, (i32)q, (i32)block_columns, adds, Blocks(t, per_row));                           \
    }
DEFINE_DSTD(n, false, bf16, bf16)
DEFINE_DSTD(t, true, bf16, bf16)
DEFINE_DSTD(n, false, f32, float)
DEFINE_DSTD(t, true, f32, float)
