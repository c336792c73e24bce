#pragma once
// Which rows and columns a block of a grouped product computes, found on the device from the experts' offsets.

#include "reduce.cuh"

/// Tiles of rows that share an L2-resident strip of weights before the next strip is begun.
constexpr int raster_rows = 8;

/// A tile of one expert's rows and the columns from `column` on; `expert` is -1 past the last one.
struct GroupedTile {
    i32 expert;
    i64 row, rows, column;
};

/// Tile number `tile` when expert e has ceil(rows / tile_rows) x `columns` tiles. Every thread of the first warp works
/// out the prefix of E / 32 experts; all threads of the block must call.
inline GroupedTile find_tile(i64 tile, const i32 *offsets, i64 experts, int tile_rows, i64 columns, int tile_columns) {
    __shared__ i32 found_expert;
    __shared__ i64 found_tile;
    if (threadIdx.x == 0) found_expert = -1;
    __syncthreads();
    if (threadIdx.x < 32) {
        const i64 per_lane = (experts + 31) / 32, begin = threadIdx.x * per_lane, end = min(experts, begin + per_lane);
        i64 mine = 0;
        for (i64 e = begin; e < end; ++e) mine += (offsets[e + 1] - offsets[e] + tile_rows - 1) / tile_rows * columns;
        i64 upto = mine;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const i64 other = __shfl_up_sync(all_lanes, upto, step);
            if (threadIdx.x >= step) upto += other;
        }
        i64 first = upto - mine;
        if (tile >= first && tile < upto) {
            for (i64 e = begin; e < end; ++e) {
                const i64 tiles = (offsets[e + 1] - offsets[e] + tile_rows - 1) / tile_rows * columns;
                if (tile < first + tiles) {
                    found_expert = (i32)e;
                    found_tile = tile - first;
                    break;
                }
                first += tiles;
            }
        }
    }
    __syncthreads();
    const i32 expert = found_expert;
    if (expert < 0) return {-1, 0, 0, 0};
    const i64 begin = offsets[expert], count = offsets[expert + 1] - begin;
    const i64 row_tiles = (count + tile_rows - 1) / tile_rows, local = found_tile;
    // Bands of raster_rows row tiles; within a band, down the rows first.
    const i64 band = local / (raster_rows * columns), within = local - band * raster_rows * columns;
    const i64 band_rows = min((i64)raster_rows, row_tiles - band * raster_rows);
    const i64 row_tile = band * raster_rows + within % band_rows;
    return {expert, begin + row_tile * tile_rows, min((i64)tile_rows, count - row_tile * tile_rows),
            within / band_rows * tile_columns};
}
