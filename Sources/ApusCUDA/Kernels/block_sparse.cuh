#pragma once
// What kernels over block-sparse matrices share: the topology, and weights stored expert by expert. See
// Ops/BlockSparse/BlockTopology.swift; MegaBlocks section 5.1.
//
// R dense rows, b rows and columns of a block, M block rows, N block columns, P blocks, Q the dense extent. M and P may
// be bounds: the blocks that are there are the first rowOffsets[M].

#include "types.cuh"

struct Topology {
    const i32 *column_indices, *row_indices, *row_offsets, *column_offsets, *transpose_indices, *row_starts;
    i64 block_rows, block;

    i64 blocks() const { return row_offsets[block_rows]; }
    /// Block columns of a block row, whose values are one row-major matrix of b rows.
    i64 columns(i64 row) const { return row_offsets[row + 1] - row_offsets[row]; }
    /// Where the values of block `p` of block row `row` begin; their rows are columns(row) * b apart.
    i64 value(i64 row, i64 p) const { return row_offsets[row] * block * block + (p - row_offsets[row]) * block; }
    i64 dense_rows(i64 row) const { return row_starts[row + 1] - row_starts[row]; }
};

/// (E, first, second): the sparse columns run along `first` and the experts, or, transposed, along `second` within each
/// expert.
template <class T> struct Stack {
    T *data;
    i64 first, second, is_transposed;

    i64 dense_extent() const { return is_transposed ? first : second; }
    /// The element of sparse column `column` and dense index `dense`.
    T *at(i64 column, i64 dense) const {
        if (!is_transposed) return data + column * second + dense;
        const i64 expert = column / second;
        return data + (expert * first + dense) * second + column - expert * second;
    }
};

#define TOPOLOGY_ARGUMENTS                                                                                             \
    const i32 *column_indices, const i32 *row_indices, const i32 *row_offsets, const i32 *column_offsets,              \
        const i32 *transpose_indices, const i32 *row_starts, i64 block_rows, i64 block
#define TOPOLOGY                                                                                                       \
    Topology {                                                                                                         \
        column_indices, row_indices, row_offsets, column_offsets, transpose_indices, row_starts, block_rows, block     \
    }
