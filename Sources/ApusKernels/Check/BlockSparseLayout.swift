import ApusTensor

// Shape letters: R dense rows, E experts, b rows and columns of a block, N block columns, n those of an expert, P blocks
// that are there, Q the dense extent.

/// A block-sparse matrix that products are checked with, and the extents around it.
struct BlockSparseLayout {
    /// b.
    let block: Int
    /// n.
    let perExpert: Int
    /// The block columns of each block row.
    let columns: [[Int]]
    /// The first dense row of each block row, and R.
    let starts: [Int]
    /// Q.
    let q: Int
    /// Empty block rows after the last, and the blocks that they would have: a device knows bounds only.
    var spare = 0

    /// E.
    let experts = 3

    /// Blocks of 4, and those that a device multiplies in tiles of 128: half a tile, a whole one, one and a half, two. Blocks
    /// are ragged, experts and block rows without any among them, and extents whole vectors and not.
    static let all =
        [
            BlockSparseLayout(
                block: 4, perExpert: 2, columns: [[0, 1], [0, 1], [4, 5], [4, 5]], starts: [0, 4, 5, 9, 11], q: 19),
            BlockSparseLayout(
                block: 4, perExpert: 2, columns: [[0, 3], [], [1, 3, 4], [1]], starts: [0, 4, 7, 11, 12], q: 8),
            BlockSparseLayout(
                block: 64, perExpert: 2, columns: [[0, 1], [0, 1], [], [5]], starts: [0, 64, 70, 73, 80], q: 136),
            BlockSparseLayout(
                block: 128, perExpert: 2, columns: [[0, 1], [0, 1], [4, 5]], starts: [0, 128, 130, 140], q: 24, spare: 2
            ),
            BlockSparseLayout(block: 192, perExpert: 1, columns: [[0], [0], [2]], starts: [0, 192, 200, 205], q: 19),
        ] + wide

    /// For tiles 256 wide that a device's blocks take in turn: an odd number of blocks, a tile and a bit of the dense extent,
    /// whole and broken halves of a tile, block rows with as many blocks and not of one expert's, and more block rows and
    /// columns than a device has multiprocessors.
    private static let wide = [
        BlockSparseLayout(
            block: 128, perExpert: 3, columns: [[0, 1, 2], [0, 1, 2], [6, 7, 8]], starts: [0, 128, 198, 238], q: 264),
        BlockSparseLayout(block: 256, perExpert: 1, columns: [[0], [0], [2]], starts: [0, 256, 386, 406], q: 72),
        BlockSparseLayout(
            block: 192, perExpert: 2, columns: [[0, 1], [0, 1], [4, 5]], starts: [0, 192, 260, 265], q: 24),
        BlockSparseLayout(
            block: 64, perExpert: 2, columns: [[0, 3], [1, 3], [2, 5]], starts: [0, 64, 128, 140], q: 136),
        BlockSparseLayout(
            block: 64, perExpert: 50, columns: (0..<200).map { [$0 * 3 / 4] }, starts: (0...200).map { $0 + $0 / 2 },
            q: 264),
    ]

    /// R.
    var rows: Int { starts[starts.count - 1] }
    /// n b.
    var width: Int { perExpert * block }
    /// Elements of the blocks that are there.
    var valueCount: Int { columns.reduce(0) { $0 + $1.count } * block * block }

    /// Made on the host, so that what is checked is the product alone.
    func topology(_ probe: CheckProbe) throws -> BlockTopology {
        let backend = probe.backend
        let exact = try BlockTopology(
            rows: columns + Array(repeating: [], count: spare), blockColumns: experts * perExpert, blockSize: block,
            starts: starts + Array(repeating: rows, count: spare), on: backend)
        func spared(_ index: Tensor) throws -> Tensor {
            let found = try backend.array(index, of: Int32.self) + Array(repeating: 0, count: spare * perExpert)
            return try backend.tensor(found, Shape(found.count), .activations)
        }
        return BlockTopology(
            blockSize: block, blockColumns: exact.blockColumns, columnIndices: try spared(exact.columnIndices),
            rowIndices: try spared(exact.rowIndices), rowOffsets: exact.rowOffsets, columnOffsets: exact.columnOffsets,
            transposeIndices: try spared(exact.transposeIndices), rowStarts: exact.rowStarts,
            blocksPerRow: exact.blocksPerRow)
    }

    /// Dense row, sparse column and place in the values, of every element that is there.
    func visit(_ body: (_ row: Int, _ column: Int, _ place: Int) -> Void) {
        var first = 0
        for (blockRow, list) in columns.enumerated() {
            for row in starts[blockRow]..<starts[blockRow + 1] {
                let begin = first + (row - starts[blockRow]) * list.count * block
                for (place, column) in list.enumerated() {
                    for inner in 0..<block { body(row, column * block + inner, begin + place * block + inner) }
                }
            }
            first += list.count * block * block
        }
    }

    /// (E, n b, Q) as (E, Q, n b): a stack of transposed matrices.
    func transposedStack(_ x: [Double]) -> [Double] {
        stride(from: 0, to: x.count, by: width * q).flatMap { transposed(Array(x[$0..<$0 + width * q]), columns: q) }
    }
}

/// A matrix of rows `columns` wide, transposed.
func transposed(_ x: [Double], columns: Int) -> [Double] {
    let rows = x.count / columns
    return (0..<x.count).map { x[$0 % rows * columns + $0 / rows] }
}
