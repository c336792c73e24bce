import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: D model width, F expert width, E experts, R routed rows, b rows and columns of a block.

/// Feed-forward experts as products with one block-sparse matrix: the hidden activations of all experts side by side,
/// (R, E F), of which only the blocks of each row's own expert are there (MegaBlocks sections 4 and 5).
///
/// Forward: SDD, the activation on the blocks that are there, DSD. Backward: SDD^T and DDS for the second matrices, DS^TD
/// and DSD for the first. Kept for backward: the first product's output and the topologies. The activation is computed
/// again.
public struct BlockSparseBank: ExpertBank {
    /// The experts' weights.
    public let matrices: ExpertMatrices
    /// b; F is a multiple of it.
    public let blockSize: Int

    /// A bank of these experts.
    public init(_ matrices: ExpertMatrices, blockSize: Int = 128) {
        precondition(
            matrices.hidden % blockSize == 0, "experts \(matrices.hidden) wide are no whole blocks of \(blockSize)")
        self.matrices = matrices
        self.blockSize = blockSize
    }

    public var experts: Int { matrices.experts }

    public func restricted(to experts: Range<Int>) -> BlockSparseBank {
        BlockSparseBank(matrices.restricted(to: experts), blockSize: blockSize)
    }

    public func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let dtype = rows.source.dtype
        let blocks = matrices.hidden / blockSize
        let output = try backend.blockTopology(
            offsets: rows.offsets, rowBound: rows.rowBound, blocksPerExpert: blocks, blockSize: blockSize)
        // A gated activation reads twice the columns that it writes.
        let input =
            matrices.activation.inputsPerOutput == 1
            ? output
            : try backend.blockTopology(
                offsets: rows.offsets, rowBound: rows.rowBound,
                blocksPerExpert: blocks * matrices.activation.inputsPerOutput, blockSize: blockSize)
        let h = try backend.empty(valueShape(input), dtype)
        let a = try backend.empty(valueShape(output), dtype)
        let y = try backend.empty(Shape(rows.rowBound, matrices.width), dtype)
        try matrices.inputSpan.withWeights(on: backend.stream) {
            try backend.sdd(Matrix(rows.source.tensor, rows: rows.index), BlockStack($0), topology: input, into: h)
        }
        try backend.activate(matrices.activation, h, into: a)
        try matrices.outputSpan.withWeights(on: backend.stream) {
            try backend.dsd(a, BlockStack($0, transposed: true), topology: output, into: y, adds: false)
        }
        return tape.record("experts", inputs: [rows.source], output: y) { flow in
            guard let dy = flow.output() else { return }
            try backward(dy, rows, h: h, input, output, flow)
        }
    }

    private func backward(
        _ dy: Tensor, _ rows: RoutedRows, h: Tensor, _ input: BlockTopology, _ output: BlockTopology,
        _ flow: borrowing GradientFlow
    ) throws {
        let backend = flow.backend
        let da = try backend.empty(valueShape(output), dy.dtype)
        try matrices.outputSpan.withWeights(on: backend.stream) {
            try backend.sdd(dy.matrix, BlockStack($0, transposed: true), topology: output, into: da)
        }
        try backend.activateBackward(matrices.activation, da, h: h, into: h, recomputed: da)
        let a = da
        if let (gradient, adds) = try matrices.outputSpan.gradientTarget() {
            try backend.dds(
                dy.transpose, a, topology: output, into: BlockStack(gradient, transposed: true), adds: adds)
        }
        if let (gradient, adds) = try matrices.inputSpan.gradientTarget() {
            try backend.dstd(
                h, Matrix(rows.source.tensor, rows: rows.index), topology: input, into: BlockStack(gradient), adds: adds
            )
        }
        guard rows.source.needsGradient else { return }
        let drows = try backend.empty(Shape(dy.shape[0], matrices.width), dy.dtype)
        try matrices.inputSpan.withWeights(on: backend.stream) {
            try backend.dsd(h, BlockStack($0), topology: input, into: drows, adds: false)
        }
        try rows.accumulate(drows, flow)
    }

    /// All block rows have the same number of blocks, so their values are one matrix.
    private func valueShape(_ topology: BlockTopology) -> Shape {
        let rows = topology.blockRows * blockSize
        return Shape(rows, rows == 0 ? 0 : topology.valueCount / rows)
    }
}
