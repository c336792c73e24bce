import ApusKernels
public import ApusTensor

// Shape letters: T tokens.

/// `y = x w^T + b`, with `w` (out, in).
public struct Linear {
    /// (out, in).
    public let weight: any Weight
    /// (out), or `nil`.
    public let bias: (any Weight)?

    /// A linear layer over the given weights.
    public init(weight: any Weight, bias: (any Weight)? = nil) {
        precondition(weight.weightShape.rank == 2)
        self.weight = weight
        self.bias = bias
    }

    /// (T, in) to (T, out), of the input's type or `outputType`.
    public func callAsFunction(_ x: Variable, on tape: Tape, outputType: DType? = nil) throws -> Variable {
        let backend = tape.backend
        let y = try backend.empty(Shape(x.shape[0], weight.weightShape[0]), outputType ?? x.dtype)
        try weight.withWeights(on: backend.stream) { weight in
            guard let bias else { return try backend.matMul(x.tensor.matrix, weight.transpose, into: y) }
            try bias.withWeights(on: backend.stream) {
                try backend.matMul(x.tensor.matrix, weight.transpose, bias: $0, into: y)
            }
        }
        return tape.record("linear", inputs: [x], output: y) { [weight, bias] flow in
            guard let dy = flow.output() else { return }
            let backend = flow.backend
            try flow.accumulate(into: x) { dx, adds in
                try weight.withWeights(on: backend.stream) {
                    try backend.matMul(dy.matrix, $0.matrix, into: dx, adds: adds)
                }
            }
            if let (gradient, adds) = try weight.gradientTarget() {
                try backend.matMul(dy.transpose, x.tensor.matrix, into: gradient, adds: adds)
            }
            if let gradient = try bias?.gradient() { try backend.addColumnSums(dy, into: gradient) }
        }
    }
}
