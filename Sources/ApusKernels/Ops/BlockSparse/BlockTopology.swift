public import ApusTensor

// Shape letters: R routed rows sorted by expert, E experts, b rows and columns of a block, M block rows, N block columns,
// P blocks that are there.

/// Where a block-sparse matrix has its blocks: blocked compressed rows, the row of each block beside them, and an index
/// that visits the blocks by columns (MegaBlocks section 5.1.3, "hybrid blocked CSR-COO").
///
/// Rows are ragged: block row `i` stands for the dense rows `rowStarts[i] ..< rowStarts[i + 1]`, at most b of them, so
/// that the experts' last blocks need no padded copy of the tokens. Everything is `i32` on the device; M and P may be
/// bounds, and then the last block rows are empty.
///
/// Values are kept block row by block row, each a row-major matrix of b rows and as many columns as its blocks have:
/// where every block row has n blocks, all values are one dense matrix (M b, n b). Rows beyond a ragged block row's
/// are zero.
public struct BlockTopology: Sendable {
    /// b.
    public let blockSize: Int
    /// N.
    public let blockColumns: Int
    /// (P) the block column of each block, ascending within a block row.
    public let columnIndices: Tensor
    /// (P) the block row of each block.
    public let rowIndices: Tensor
    /// (M + 1) the first block of each block row.
    public let rowOffsets: Tensor
    /// (N + 1) where each block column begins in ``transposeIndices``.
    public let columnOffsets: Tensor
    /// (P) the blocks by columns, rows ascending: values are never moved to be read transposed.
    public let transposeIndices: Tensor
    /// (M + 1) the first dense row of each block row.
    public let rowStarts: Tensor
    /// n, where every block row that stands for rows has n blocks and those without any come last: all values are then
    /// one matrix, block row i from its row i b on, and block p is of block row p / n. Nil for other topologies.
    public let blocksPerRow: Int?

    /// Block rows that experts with `rows` rows between them take at most, each ending in a ragged one.
    public static func blockRowBound(rows: Int, experts: Int, blockSize: Int) -> Int {
        rows / blockSize + min(rows, experts)
    }

    /// M.
    public var blockRows: Int { rowOffsets.count - 1 }
    /// P.
    public var blocks: Int { columnIndices.count }
    /// Elements of the values.
    public var valueCount: Int { blocks * blockSize * blockSize }

    /// A topology of the given block columns for each block row; everything else follows.
    ///
    /// - Parameters:
    ///   - rows: Ascending block columns of each block row.
    ///   - starts: (M + 1) first dense rows; whole blocks by default.
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``, and what the device's copies throw.
    public init(
        rows: [[Int]], blockColumns: Int, blockSize: Int, starts: [Int]? = nil, on backend: any Backend
    ) throws {
        precondition(rows.allSatisfy { zip($0, $0.dropFirst()).allSatisfy(<) && $0.allSatisfy { $0 < blockColumns } })
        let starts = starts ?? (0...rows.count).map { $0 * blockSize }
        precondition(zip(starts, starts.dropFirst()).allSatisfy { (0...blockSize).contains($1 - $0) })
        func tensor(_ values: [Int]) throws -> Tensor {
            try backend.tensor(values.map(Int32.init), Shape(values.count), .activations)
        }
        let columns = rows.flatMap { $0 }
        let owners = rows.indices.flatMap { row in rows[row].map { _ in row } }
        var byColumn = Array(repeating: [Int](), count: blockColumns)
        for (block, column) in columns.enumerated() { byColumn[column].append(block) }
        self.blockSize = blockSize
        self.blockColumns = blockColumns
        columnIndices = try tensor(columns)
        rowIndices = try tensor(owners)
        rowOffsets = try tensor(BlockTopology.offsets(rows.map(\.count)))
        columnOffsets = try tensor(BlockTopology.offsets(byColumn.map(\.count)))
        transposeIndices = try tensor(byColumn.flatMap { $0 })
        rowStarts = try tensor(starts)
        blocksPerRow = BlockTopology.blocksPerRow(rows.map(\.count), starts: starts)
    }

    /// A topology made of its parts, for a device that fills them itself and knows ``blocksPerRow`` or says nil.
    public init(
        blockSize: Int, blockColumns: Int, columnIndices: Tensor, rowIndices: Tensor, rowOffsets: Tensor,
        columnOffsets: Tensor, transposeIndices: Tensor, rowStarts: Tensor, blocksPerRow: Int?
    ) {
        self.blockSize = blockSize
        self.blockColumns = blockColumns
        self.columnIndices = columnIndices
        self.rowIndices = rowIndices
        self.rowOffsets = rowOffsets
        self.columnOffsets = columnOffsets
        self.transposeIndices = transposeIndices
        self.rowStarts = rowStarts
        self.blocksPerRow = blocksPerRow
    }

    /// What all block rows have, up to the last that has any, after which none stands for a row.
    private static func blocksPerRow(_ counts: [Int], starts: [Int]) -> Int? {
        guard let last = counts.lastIndex(where: { $0 > 0 }), starts[last + 1] == starts[counts.count],
            counts[...last].allSatisfy({ $0 == counts[0] })
        else { return nil }
        return counts[0]
    }

    private static func offsets(_ counts: [Int]) -> [Int] {
        counts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
    }
}

/// A dense matrix that meets the columns of a block-sparse one, in the form that weights are stored in: one matrix for
/// each expert, whole or transposed.
public struct BlockStack: Sendable {
    /// (E, P, Q).
    public let tensor: Tensor
    /// Whether each expert's matrix stands for its transpose: then Q meets the sparse matrix' columns, else P does.
    public let isTransposed: Bool

    /// A stack of the experts' matrices.
    public init(_ tensor: Tensor, transposed: Bool = false) {
        precondition(tensor.shape.rank == 3 && tensor.isContiguous, "a stack of matrices is dense, not \(tensor.shape)")
        self.tensor = tensor
        isTransposed = transposed
    }

    /// Elements of one expert along the sparse matrix' columns.
    var extent: Int { tensor.shape[isTransposed ? 2 : 1] }
    /// Elements along the dense dimension.
    public var denseExtent: Int { tensor.shape[isTransposed ? 1 : 2] }

    /// What is stored for the given columns of the sparse matrix; they lie within one expert when it is transposed.
    func stored(_ columns: Range<Int>) -> Tensor {
        let shape = tensor.shape
        guard isTransposed else { return tensor.reshaped(shape[0] * shape[1], shape[2])[columns] }
        let expert = columns.lowerBound / extent
        let begin = columns.lowerBound - expert * extent
        return tensor[expert..<expert + 1].reshaped(shape[1], shape[2]).columns(begin..<begin + columns.count)
    }

    /// The given columns of the sparse matrix by the dense dimension, as an operand.
    func operand(_ columns: Range<Int>) -> Matrix { Matrix(stored(columns), transposed: isTransposed) }
    /// The dense dimension by the given columns of the sparse matrix, as an operand.
    func transposedOperand(_ columns: Range<Int>) -> Matrix { Matrix(stored(columns), transposed: !isTransposed) }
}
