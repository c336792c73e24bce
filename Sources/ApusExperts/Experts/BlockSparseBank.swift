public import ApusKernels
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
    /// The first matrices: for each expert (F, D), or gate above up (2F, D) for a gated activation.
    public let inputs: [Parameter]
    /// The second matrices, (D, F) each.
    public let outputs: [Parameter]
    /// The non-linearity.
    public let activation: Activation
    /// b; F is a multiple of it.
    public let blockSize: Int
    private let inputSpan: ParameterSpan
    private let outputSpan: ParameterSpan

    /// A bank over matrices declared expert by expert; `inputs` holds gate and up in turn for a gated activation.
    public init(inputs: [Parameter], outputs: [Parameter], activation: Activation, blockSize: Int = 128) {
        let experts = outputs.count
        precondition(experts > 0 && inputs.count == experts * activation.inputsPerOutput)
        let (width, hidden) = (outputs[0].shape[0], outputs[0].shape[1])
        precondition(hidden % blockSize == 0, "experts \(hidden) wide are no whole blocks of \(blockSize)")
        self.inputs = inputs
        self.outputs = outputs
        self.activation = activation
        self.blockSize = blockSize
        inputSpan = ParameterSpan(inputs, shape: Shape(experts, hidden * activation.inputsPerOutput, width))
        outputSpan = ParameterSpan(outputs, shape: Shape(experts, width, hidden))
    }

    /// E.
    public var experts: Int { outputs.count }

    public func restricted(to experts: Range<Int>) -> BlockSparseBank {
        let stride = activation.inputsPerOutput
        return BlockSparseBank(
            inputs: Array(inputs[experts.lowerBound * stride..<experts.upperBound * stride]),
            outputs: Array(outputs[experts]), activation: activation, blockSize: blockSize)
    }

    public func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let dtype = rows.source.dtype
        let blocks = outputSpan.weightShape[2] / blockSize
        let output = try backend.blockTopology(
            offsets: rows.offsets, blocksPerExpert: blocks, blockSize: blockSize)
        // A gated activation reads twice the columns that it writes.
        let input =
            activation.inputsPerOutput == 1
            ? output
            : try backend.blockTopology(
                offsets: rows.offsets, blocksPerExpert: blocks * activation.inputsPerOutput, blockSize: blockSize)
        let h = try backend.empty(valueShape(input), dtype)
        let a = try backend.empty(valueShape(output), dtype)
        let y = try backend.empty(Shape(rows.rowBound, outputSpan.weightShape[1]), dtype)
        try inputSpan.withWeights(on: backend.stream) {
            try backend.sdd(Matrix(rows.source.tensor, rows: rows.index), BlockStack($0), topology: input, into: h)
        }
        try backend.activate(activation, h, into: a)
        try outputSpan.withWeights(on: backend.stream) {
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
        let a = try backend.empty(da.shape, da.dtype)
        try outputSpan.withWeights(on: backend.stream) {
            try backend.sdd(dy.matrix, BlockStack($0, transposed: true), topology: output, into: da)
        }
        try backend.activateBackward(activation, da, h: h, into: h, recomputed: a)
        if let gradient = outputSpan.gradient {
            try backend.dds(
                dy.transpose, a, topology: output, into: BlockStack(gradient, transposed: true), adds: true)
        }
        if let gradient = inputSpan.gradient {
            try backend.dstd(
                h, Matrix(rows.source.tensor, rows: rows.index), topology: input, into: BlockStack(gradient), adds: true
            )
        }
        guard rows.source.needsGradient else { return }
        let drows = try backend.empty(Shape(dy.shape[0], inputSpan.weightShape[2]), dy.dtype)
        try inputSpan.withWeights(on: backend.stream) {
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
