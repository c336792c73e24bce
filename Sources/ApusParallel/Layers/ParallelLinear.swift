import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, N tensor-parallel ranks.

/// `y = x w^T + b` with the output divided over the ranks: each has (out / N, in) of `w` and (out / N) of `b`.
public struct ColumnParallelLinear {
    /// This rank's rows of the weight and of the bias.
    public let local: Linear
    /// Between the stream and the product.
    public let boundary: any TokenBoundary

    /// A product over this rank's rows of the weight.
    public init(local: Linear, boundary: any TokenBoundary) {
        self.local = local
        self.boundary = boundary
    }

    /// All tokens' inputs to this rank's outputs (T, out / N).
    public func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable {
        try local(boundary.enter(x, on: tape), on: tape)
    }
}

/// `y = x w^T + b` with the input divided over the ranks: each has (out, in / N) of `w`, and all have `b`.
public struct RowParallelLinear {
    /// (out, in / N).
    public let weight: any Weight
    /// (out), added once, after the sum; `nil` for none.
    public let bias: (any Weight)?
    /// Between the product and the stream.
    public let boundary: any TokenBoundary

    /// A product over this rank's columns of the weight.
    public init(weight: any Weight, bias: (any Weight)? = nil, boundary: any TokenBoundary) {
        self.weight = weight
        self.bias = bias
        self.boundary = boundary
    }

    /// This rank's inputs (T, in / N) to the sum over the ranks, (T, out) or this rank's tokens of it.
    public func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable {
        let y = try boundary.leave(Linear(weight: weight)(x, on: tape), on: tape)
        return try bias.map { try tape.addBias(y, $0) } ?? y
    }
}

extension Tape {
    /// `y + bias`, with `bias` (D) added to every row of `y` (T, D).
    func addBias(_ y: Variable, _ bias: any Weight) throws -> Variable {
        // Not in place: a checkpointed block may keep what the exchange has made.
        let sum = try backend.empty(y.shape, y.dtype)
        try bias.withWeights(on: backend.stream) { try backend.addBias(y.tensor, bias: $0, into: sum) }
        return record("bias", inputs: [y], output: sum) { flow in
            guard let gradient = flow.takeOutput() else { return }
            if let target = try bias.gradient() { try flow.backend.addColumnSums(gradient, into: target) }
            try flow.accumulate(gradient, into: y)
        }
    }
}
