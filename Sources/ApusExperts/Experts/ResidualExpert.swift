import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width.

/// A dense expert beside the routed ones, mixed by learned coefficients: `y = c0 * moe(x) + c1 * dense(x)`.
///
/// Two rows of the coefficient's matrix are `(c0, c1) = softmax(x w^T + b)`: PR-MoE (DeepSpeed-MoE section 3.1, with the
/// learned coefficient of its code) and, without b, ScMoE's CG-2. One row is `c0 = 1` and `c1 = sigmoid(x w^T + b)`: CG-1.
public struct ResidualExpert {
    /// The dense expert.
    public let expert: any FeedForwardLayer
    /// (2, D) or (1, D).
    public let coefficient: any Weight
    /// (2) or (1), or `nil`.
    public let bias: (any Weight)?

    /// A residual expert over the given weights.
    public init(expert: any FeedForwardLayer, coefficient: any Weight, bias: (any Weight)? = nil) {
        precondition((1...2).contains(coefficient.weightShape[0]), "a coefficient for one branch, or for each of two")
        self.expert = expert
        self.coefficient = coefficient
        self.bias = bias
    }

    /// Mixes the routed result (T, D) with the dense expert's on `x` (T, D).
    ///
    /// - Parameter routed: Asked for when everything else is computed, so that a result on its way has time to arrive.
    public func callAsFunction(
        _ x: Variable, mixedWith routed: @autoclosure () throws -> Variable, on tape: Tape
    ) throws -> Variable {
        let dense = try expert(x, on: tape)
        let logits = try Linear(weight: coefficient, bias: bias)(x, on: tape, outputType: .f32)
        let weights = try logits.shape[1] == 2 ? softmax(logits, on: tape) : sigmoid(logits, on: tape)
        return try mix(routed(), dense, weights, on: tape)
    }

    /// (T, 2): 1 for the routed branch, and the sigmoid of `logits` (T, 1) for the dense one.
    private func sigmoid(_ logits: Variable, on tape: Tape) throws -> Variable {
        let gates = try tape.backend.empty(logits.shape, .f32)
        try tape.backend.sigmoid(logits.tensor, into: gates)
        let y = try tape.backend.empty(Shape(logits.shape[0], 2), .f32)
        try tape.backend.fill(y, with: 1)
        try tape.backend.copy(gates, into: y.columns(1..<2))
        return tape.record("sigmoid", inputs: [logits], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dgates = try flow.backend.empty(gates.shape, .f32)
            try flow.backend.copy(dy.columns(1..<2), into: dgates)
            try flow.backend.sigmoidBackward(dgates, y: gates, into: dgates)
            try flow.accumulate(dgates, into: logits)
        }
    }

    private func softmax(_ logits: Variable, on tape: Tape) throws -> Variable {
        let y = try tape.backend.empty(logits.shape, .f32)
        try tape.backend.softmax(logits.tensor, into: y)
        return tape.record("softmax", inputs: [logits], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dx = try flow.backend.empty(y.shape, .f32)
            try flow.backend.softmaxBackward(dy, y: y, into: dx)
            try flow.accumulate(dx, into: logits)
        }
    }

    private func mix(_ routed: Variable, _ dense: Variable, _ weights: Variable, on tape: Tape) throws -> Variable {
        let y = try tape.backend.empty(routed.shape, routed.dtype)
        try tape.backend.mixRows(routed.tensor, dense.tensor, weights: weights.tensor, into: y)
        return tape.record("residual_mix", inputs: [routed, dense, weights], output: y) { flow in
            guard let dy = flow.output() else { return }
            let gradients = try (0..<2).map { _ in try flow.backend.empty(dy.shape, dy.dtype) }
            let dweights = try flow.backend.empty(weights.shape, .f32)
            try flow.backend.mixRowsBackward(
                dy, routed.tensor, dense.tensor, weights: weights.tensor, da: gradients[0], db: gradients[1],
                dweights: dweights)
            try flow.accumulate(gradients[0], into: routed)
            try flow.accumulate(gradients[1], into: dense)
            try flow.accumulate(dweights, into: weights)
        }
    }
}
