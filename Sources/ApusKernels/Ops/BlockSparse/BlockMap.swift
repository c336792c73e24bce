import ApusTensor

// Shape letters: b rows and columns of a block, M block rows, N block columns.

/// A rectangle of neighbouring blocks, for one dense product.
struct BlockTile: Sendable {
    /// Dense rows.
    let rows: Range<Int>
    /// Columns of the sparse matrix, in elements.
    let columns: Range<Int>
    /// The first value, and the elements between rows of values.
    let value: Int
    let stride: Int
}

/// Finds in a topology the rectangles that its blocks make, so that neighbours are multiplied together.
///
/// Any topology works; that of experts side by side comes out as one rectangle for each expert.
struct BlockMap: @unchecked Sendable {
    private let size: Int
    private let blockColumns: Int
    private let values: Tensor
    private let columnIndices: [Int]
    private let rowIndices: [Int]
    private let rowOffsets: [Int]
    private let columnOffsets: [Int]
    private let transposeIndices: [Int]
    private let rowStarts: [Int]

    init(_ topology: BlockTopology, values: Tensor) {
        precondition(values.isContiguous && values.count >= topology.valueCount, "values of \(values.shape)")
        func array(_ tensor: Tensor) -> [Int] { tensor.array(of: Int32.self).map(Int.init) }
        size = topology.blockSize
        blockColumns = topology.blockColumns
        self.values = values.reshaped(values.count)
        columnIndices = array(topology.columnIndices)
        rowIndices = array(topology.rowIndices)
        rowOffsets = array(topology.rowOffsets)
        columnOffsets = array(topology.columnOffsets)
        transposeIndices = array(topology.transposeIndices)
        rowStarts = array(topology.rowStarts)
    }

    private func columns(ofRow row: Int) -> ArraySlice<Int> { columnIndices[rowOffsets[row]..<rowOffsets[row + 1]] }
    private func isFull(_ row: Int) -> Bool { rowStarts[row + 1] - rowStarts[row] == size }

    /// The values of a tile as a matrix.
    func view(_ tile: BlockTile) -> Tensor {
        Tensor(
            storage: values.storage, byteOffset: values.byteOffset + values.dtype.byteCount(elements: tile.value),
            shape: Shape(tile.rows.count, tile.columns.count), rowStride: tile.stride, dtype: values.dtype)
    }

    /// Dense rows whose block rows have no block.
    func emptyRows() -> [Range<Int>] {
        (0..<rowStarts.count - 1).filter { columns(ofRow: $0).isEmpty && rowStarts[$0] < rowStarts[$0 + 1] }
            .map { rowStarts[$0]..<rowStarts[$0 + 1] }
    }

    /// Zeroes the rows of values that stand for no dense row.
    func clearRaggedRows() {
        for row in 0..<rowStarts.count - 1 where !isFull(row) {
            let stride = columns(ofRow: row).count * size
            let first = rowOffsets[row] * size * size + (rowStarts[row + 1] - rowStarts[row]) * stride
            let count = (rowOffsets[row] * size * size + size * stride) - first
            let address = values.rawPointer + values.dtype.byteCount(elements: first)
            address.initializeMemory(as: UInt8.self, repeating: 0, count: values.dtype.byteCount(elements: count))
        }
    }

    /// Tiles by rows: those of one element of the result read the same dense rows, which nobody else does.
    ///
    /// - Parameter stackBlocks: Block columns beyond whose multiples no tile may reach.
    func rowTiles(stackBlocks: Int) -> [[BlockTile]] {
        var bands: [[BlockTile]] = []
        var row = 0
        while row < rowStarts.count - 1 {
            let list = columns(ofRow: row)
            var end = row + 1
            while end < rowStarts.count - 1, isFull(end - 1), columns(ofRow: end).elementsEqual(list) { end += 1 }
            let dense = rowStarts[row]..<rowStarts[end]
            if !list.isEmpty && !dense.isEmpty {
                let (first, stride) = (rowOffsets[row] * size * size, list.count * size)
                bands.append(
                    runs(list, stackBlocks: stackBlocks).map { run in
                        BlockTile(
                            rows: dense, columns: run.column * size..<(run.column + run.count) * size,
                            value: first + run.place * size, stride: stride)
                    })
            }
            row = end
        }
        return bands
    }

    /// Neighbouring block columns of a block row.
    private func runs(
        _ list: ArraySlice<Int>, stackBlocks: Int
    ) -> [(column: Int, place: Int, count: Int)] {
        var result: [(column: Int, place: Int, count: Int)] = []
        for (place, column) in list.enumerated() {
            if let last = result.last, last.column + last.count == column, column % stackBlocks != 0 {
                result[result.count - 1].count += 1
            } else {
                result.append((column, place, 1))
            }
        }
        return result
    }

    /// Tiles by columns, found through the transpose index: those of one element of the result have the same columns,
    /// which nobody else has.
    func columnTiles(stackBlocks: Int) -> [[BlockTile]] {
        var groups: [Range<Int>] = []
        for column in 0..<blockColumns where columnOffsets[column] < columnOffsets[column + 1] {
            if let last = groups.last, last.upperBound == column, column % stackBlocks != 0,
                continues(column, after: column - 1)
            {
                groups[groups.count - 1] = last.lowerBound..<column + 1
            } else {
                groups.append(column..<column + 1)
            }
        }
        return groups.map(tiles)
    }

    private func blocks(ofColumn column: Int) -> ArraySlice<Int> {
        transposeIndices[columnOffsets[column]..<columnOffsets[column + 1]]
    }

    /// Whether a block column has its blocks in the same block rows as the one before, beside them in storage.
    private func continues(_ column: Int, after previous: Int) -> Bool {
        let (left, right) = (blocks(ofColumn: previous), blocks(ofColumn: column))
        return left.count == right.count
            && zip(left, right).allSatisfy { $0 + 1 == $1 && rowIndices[$0] == rowIndices[$1] }
    }

    /// The rectangles of neighbouring block columns that have the same block rows.
    private func tiles(columns group: Range<Int>) -> [BlockTile] {
        var result: [BlockTile] = []
        var last: (row: Int, place: Int, count: Int)?
        for block in blocks(ofColumn: group.lowerBound) {
            let row = rowIndices[block]
            let (place, count) = (block - rowOffsets[row], columns(ofRow: row).count)
            let dense = rowStarts[row]..<rowStarts[row + 1]
            if let before = last, before == (row - 1, place, count), isFull(row - 1), let tile = result.last {
                result[result.count - 1] = BlockTile(
                    rows: tile.rows.lowerBound..<dense.upperBound, columns: tile.columns, value: tile.value,
                    stride: tile.stride)
            } else {
                result.append(
                    BlockTile(
                        rows: dense, columns: group.lowerBound * size..<group.upperBound * size,
                        value: rowOffsets[row] * size * size + place * size, stride: count * size))
            }
            last = (row, place, count)
        }
        return result.filter { !$0.rows.isEmpty }
    }
}
