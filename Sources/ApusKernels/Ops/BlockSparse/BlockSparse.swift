public import ApusTensor
import CApusKernels

// Shape letters: R routed rows, E experts, b rows and columns of a block, M block rows, N block columns, P blocks that
// are there, Q the dense extent.

/// Products with one block-sparse matrix S (R, N b), named output, left, right (MegaBlocks section 5.1): S for sparse, D
/// for dense.
///
/// S lies in values of ``BlockTopology/valueCount`` elements. Matrices that meet its rows have R of them, perhaps picked
/// by an index; those that meet its columns are stacks of experts, a stack being (N b, Q) however its matrices are stored.
public protocol BlockSparseOp {
    /// The topology of experts side by side: the rows `offsets[e] ..< offsets[e + 1]` have the `blocksPerExpert` block
    /// columns of expert e. `offsets` (E + 1) `i32`, from 0 or above, ascending; at most `rowBound` rows.
    func blockTopology(offsets: Tensor, rowBound: Int, blocksPerExpert: Int, blockSize: Int) throws -> BlockTopology
    /// SDD: the blocks of `a b^T`, `a` (R, Q), `b` (N b, Q). Rows of ragged blocks that stand for no row become 0.
    func sdd(_ a: Matrix, _ b: BlockStack, topology: BlockTopology, into values: Tensor) throws
    /// DSD: `c (+)= S b`, `b` (N b, Q), `c` (R, Q); rows without blocks become 0 unless `adds`.
    func dsd(_ values: Tensor, _ b: BlockStack, topology: BlockTopology, into c: Tensor, adds: Bool) throws
    /// DS^TD: `c (+)= S^T b`, `b` (R, Q), `c` (N b, Q); columns without blocks become 0 unless `adds`.
    func dstd(_ values: Tensor, _ b: Matrix, topology: BlockTopology, into c: BlockStack, adds: Bool) throws
    /// DDS: `c^T (+)= a S`, `a` (Q, R), `c` (N b, Q): what ``dstd(_:_:topology:into:adds:)`` is of the transposed a.
    func dds(_ a: Matrix, _ values: Tensor, topology: BlockTopology, into c: BlockStack, adds: Bool) throws
    /// DDS^T: `c (+)= a^T S^T`, `a` (N b, Q), `c` (Q, R): the transpose of ``dsd(_:_:topology:into:adds:)``.
    func ddst(_ a: BlockStack, _ values: Tensor, topology: BlockTopology, into c: Tensor, adds: Bool) throws
}

extension CPUBackend: BlockSparseOp {
    public func blockTopology(
        offsets: Tensor, rowBound: Int, blocksPerExpert: Int, blockSize: Int
    ) throws -> BlockTopology {
        try offsets.waitUntilReady()
        let bounds = offsets.array(of: Int32.self).map(Int.init)
        var rows: [[Int]] = []
        var starts = [bounds[0]]
        for expert in 0..<bounds.count - 1 {
            let columns = Array(expert * blocksPerExpert..<(expert + 1) * blocksPerExpert)
            for start in stride(from: bounds[expert], to: bounds[expert + 1], by: blockSize) {
                rows.append(columns)
                starts.append(min(start + blockSize, bounds[expert + 1]))
            }
        }
        return try BlockTopology(
            rows: rows, blockColumns: (bounds.count - 1) * blocksPerExpert, blockSize: blockSize, starts: starts,
            on: self)
    }

    public func sdd(_ a: Matrix, _ b: BlockStack, topology: BlockTopology, into values: Tensor) throws {
        try a.waitUntilReady()
        try b.tensor.waitUntilReady()
        let blocks = BlockMap(topology, values: values)
        blocks.clearRaggedRows()
        let tiles = blocks.rowTiles(stackBlocks: b.stackBlocks(topology)).flatMap { $0.map { [$0] } }
        try run(tiles, adds: false) { tile, _ in
            Product(
                a.rowRange(tile.rows), b.transposedOperand(tile.columns), into: blocks.view(tile),
                isBatchInvariant: self.isBatchInvariant)
        }
    }

    public func dsd(_ values: Tensor, _ b: BlockStack, topology: BlockTopology, into c: Tensor, adds: Bool) throws {
        try values.waitUntilReady()
        try b.tensor.waitUntilReady()
        let blocks = BlockMap(topology, values: values)
        if !adds { for rows in blocks.emptyRows() { fill(c[rows], with: 0) } }
        let bands = blocks.rowTiles(stackBlocks: b.stackBlocks(topology))
        try run(bands, adds: adds) { tile, beta in
            Product(
                Matrix(blocks.view(tile)), b.operand(tile.columns), into: c[tile.rows], beta: beta,
                isBatchInvariant: self.isBatchInvariant)
        }
    }

    public func ddst(_ a: BlockStack, _ values: Tensor, topology: BlockTopology, into c: Tensor, adds: Bool) throws {
        try values.waitUntilReady()
        try a.tensor.waitUntilReady()
        let blocks = BlockMap(topology, values: values)
        if !adds { for rows in blocks.emptyRows() { clear(c.columns(rows)) } }
        let bands = blocks.rowTiles(stackBlocks: a.stackBlocks(topology))
        try run(bands, adds: adds) { tile, beta in
            Product(
                a.transposedOperand(tile.columns), Matrix(blocks.view(tile), transposed: true),
                into: c.columns(tile.rows), beta: beta, isBatchInvariant: self.isBatchInvariant)
        }
    }

    public func dstd(_ values: Tensor, _ b: Matrix, topology: BlockTopology, into c: BlockStack, adds: Bool) throws {
        try columnProduct(values, b, topology, into: c, adds: adds)
    }

    public func dds(_ a: Matrix, _ values: Tensor, topology: BlockTopology, into c: BlockStack, adds: Bool) throws {
        let rows = Matrix(a.tensor, transposed: !a.isTransposed, rows: a.rows)
        try columnProduct(values, rows, topology, into: c, adds: adds)
    }

    /// `c (+)= S^T b`, whichever way each expert's part of c is stored.
    private func columnProduct(
        _ values: Tensor, _ b: Matrix, _ topology: BlockTopology, into c: BlockStack, adds: Bool
    ) throws {
        try values.waitUntilReady()
        try b.waitUntilReady()
        try c.tensor.waitUntilReady()
        let blocks = BlockMap(topology, values: values)
        if !adds { fill(c.tensor, with: 0) }
        let bands = blocks.columnTiles(stackBlocks: c.stackBlocks(topology))
        try run(bands, adds: true) { tile, beta in
            let (sparse, dense) = (blocks.view(tile), b.rowRange(tile.rows))
            let (left, right) =
                c.isTransposed
                ? (Matrix(dense.tensor, transposed: !dense.isTransposed, rows: dense.rows), Matrix(sparse))
                : (Matrix(sparse, transposed: true), dense)
            return Product(
                left, right, into: c.stored(tile.columns), beta: beta, isBatchInvariant: self.isBatchInvariant)
        }
    }

    /// Bands are independent; the tiles of a band add to the same part of the output, in order. Where experts choose
    /// the blocks, a band has one tile.
    private func run(
        _ bands: [[BlockTile]], adds: Bool, _ product: (BlockTile, _ beta: Float) -> Product
    ) throws {
        for place in 0..<(bands.map(\.count).max() ?? 0) {
            var queue = ProductQueue(self)
            for band in bands where place < band.count { queue.add(product(band[place], place > 0 || adds ? 1 : 0)) }
            try queue.run()
        }
    }

    private func clear(_ columns: Tensor) {
        for row in 0..<columns.shape[0] { fill(columns[row..<row + 1], with: 0) }
    }
}

extension BlockStack {
    /// Block columns that a product may take at once: those of one expert where experts are stored apart.
    fileprivate func stackBlocks(_ topology: BlockTopology) -> Int {
        isTransposed ? extent / topology.blockSize : topology.blockColumns
    }
}

extension Matrix {
    /// The given rows of the operand.
    fileprivate func rowRange(_ range: Range<Int>) -> Matrix {
        if isTransposed { return Matrix(tensor.columns(range), transposed: true, rows: rows) }
        return rows.map { Matrix(tensor, rows: $0[range]) } ?? Matrix(tensor[range])
    }
}
