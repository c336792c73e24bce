public import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: D model width, F expert width, E experts, R routed rows.

/// Feed-forward experts as grouped products over uneven groups of rows; nothing padded, nothing dropped.
///
/// Also computes the padded layout, whose groups are merely even. Kept for backward: the first product's output, one
/// copy for each routed row. The activation is computed again.
public struct GroupedBank: ExpertBank {
    /// The first matrices: for each expert (F, D), or gate above up (2F, D) for a gated activation.
    public let inputs: [Parameter]
    /// The second matrices, (D, F) each.
    public let outputs: [Parameter]
    /// The non-linearity.
    public let activation: Activation
    private let inputSpan: ParameterSpan
    private let outputSpan: ParameterSpan

    /// A bank over matrices declared expert by expert; `inputs` holds gate and up in turn for a gated activation.
    public init(inputs: [Parameter], outputs: [Parameter], activation: Activation) {
        let experts = outputs.count
        precondition(experts > 0 && inputs.count == experts * activation.inputsPerOutput)
        let (width, hidden) = (outputs[0].shape[0], outputs[0].shape[1])
        self.inputs = inputs
        self.outputs = outputs
        self.activation = activation
        inputSpan = ParameterSpan(inputs, shape: Shape(experts, hidden * activation.inputsPerOutput, width))
        outputSpan = ParameterSpan(outputs, shape: Shape(experts, width, hidden))
    }

    /// E.
    public var experts: Int { outputs.count }

    public func restricted(to experts: Range<Int>) -> GroupedBank {
        let stride = activation.inputsPerOutput
        return GroupedBank(
            inputs: Array(inputs[experts.lowerBound * stride..<experts.upperBound * stride]),
            outputs: Array(outputs[experts]), activation: activation)
    }

    public func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let (hidden, width) = (inputSpan.weightShape[1], outputSpan.weightShape[1])
        let dtype = rows.source.dtype
        let h = try backend.empty(Shape(rows.rowBound, hidden), dtype)
        let a = try backend.empty(Shape(rows.rowBound, hidden / activation.inputsPerOutput), dtype)
        let y = try backend.empty(Shape(rows.rowBound, width), dtype)
        try inputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(
                rows.source.tensor, rows: rows.index, weights: $0, transposed: true, offsets: rows.offsets, into: h)
        }
        try backend.activate(activation, h, into: a)
        try outputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(a, rows: nil, weights: $0, transposed: true, offsets: rows.offsets, into: y)
        }
        return tape.record("experts", inputs: [rows.source], output: y) { flow in
            guard let dy = flow.output() else { return }
            try backward(dy, rows, h: h, flow)
        }
    }

    private func backward(_ dy: Tensor, _ rows: RoutedRows, h: Tensor, _ flow: borrowing GradientFlow) throws {
        let backend = flow.backend
        let da = try backend.empty(Shape(dy.shape[0], outputSpan.weightShape[2]), dy.dtype)
        let a = try backend.empty(da.shape, da.dtype)
        try outputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(dy, rows: nil, weights: $0, transposed: false, offsets: rows.offsets, into: da)
        }
        try backend.activateBackward(activation, da, h: h, into: h, recomputed: a)
        if let gradient = outputSpan.gradient {
            try backend.groupedWeightGradient(dy, a, rows: nil, offsets: rows.offsets, into: gradient)
        }
        if let gradient = inputSpan.gradient {
            try backend.groupedWeightGradient(
                h, rows.source.tensor, rows: rows.index, offsets: rows.offsets, into: gradient)
        }
        guard rows.source.needsGradient else { return }
        let drows = try backend.empty(Shape(dy.shape[0], inputSpan.weightShape[2]), dy.dtype)
        try inputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(h, rows: nil, weights: $0, transposed: false, offsets: rows.offsets, into: drows)
        }
        try rows.accumulate(drows, flow)
    }
}
