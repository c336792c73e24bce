public import ApusKernels
import ApusTensor

// Shape letters: T tokens, D model width, F hidden width.

/// Two products with a non-linearity between: `y = activation(x w1^T) w2^T`.
///
/// Kept for backward: the input and the first product's output. The activation is computed again.
public struct FeedForward {
    /// (F, D), or (2F, D) holding gate above up for a gated activation.
    public let input: any Weight
    /// (D, F).
    public let output: any Weight
    /// The non-linearity.
    public let activation: Activation

    /// A feed-forward layer over the given weights.
    public init(input: any Weight, output: any Weight, activation: Activation) {
        precondition(input.weightShape[0] == activation.inputsPerOutput * output.weightShape[1])
        self.input = input
        self.output = output
        self.activation = activation
    }

    /// (T, D) to (T, D).
    public func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let tokens = x.shape[0]
        let h = try backend.empty(Shape(tokens, input.weightShape[0]), x.dtype)
        let a = try backend.empty(Shape(tokens, output.weightShape[1]), x.dtype)
        let y = try backend.empty(Shape(tokens, output.weightShape[0]), x.dtype)
        try input.withWeights(on: backend.stream) { try backend.matMul(x.tensor.matrix, $0.transpose, into: h) }
        try backend.activate(activation, h, into: a)
        try output.withWeights(on: backend.stream) { try backend.matMul(a.matrix, $0.transpose, into: y) }
        return tape.record("feed_forward", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            try backward(dy, x, h: h, flow)
        }
    }

    private func backward(_ dy: Tensor, _ x: Variable, h: Tensor, _ flow: borrowing GradientFlow) throws {
        let backend = flow.backend
        let da = try backend.empty(Shape(dy.shape[0], output.weightShape[1]), dy.dtype)
        try output.withWeights(on: backend.stream) { try backend.matMul(dy.matrix, $0.matrix, into: da) }
        try backend.activateBackward(activation, da, h: h, into: h, recomputed: da)
        let a = da
        if let (gradient, adds) = try output.gradientTarget() {
            try backend.matMul(dy.transpose, a.matrix, into: gradient, adds: adds)
        }
        if let (gradient, adds) = try input.gradientTarget() {
            try backend.matMul(h.transpose, x.tensor.matrix, into: gradient, adds: adds)
        }
        try flow.accumulate(into: x) { dx, adds in
            try input.withWeights(on: backend.stream) { try backend.matMul(h.matrix, $0.matrix, into: dx, adds: adds) }
        }
    }
}
