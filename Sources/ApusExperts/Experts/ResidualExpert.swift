import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width.

/// PR-MoE's dense expert beside the routed ones: `y = c0 * moe(x) + c1 * dense(x)`, `(c0, c1) = softmax(x w^T + b)`
/// (DeepSpeed-MoE section 3.1, with the learned coefficient of its code).
public struct ResidualExpert {
    /// The dense expert.
    public let expert: any FeedForwardLayer
    /// (2, D).
    public let coefficient: any Weight
    /// (2).
    public let bias: any Weight

    /// A residual expert over the given weights.
    public init(expert: any FeedForwardLayer, coefficient: any Weight, bias: any Weight) {
        self.expert = expert
        self.coefficient = coefficient
        self.bias = bias
    }

    /// Mixes the routed result (T, D) with the dense expert's on `x` (T, D).
    public func callAsFunction(_ x: Variable, mixedWith routed: Variable, on tape: Tape) throws -> Variable {
        let dense = try expert(x, on: tape)
        let logits = try Linear(weight: coefficient, bias: bias)(x, on: tape, outputType: .f32)
        let weights = try softmax(logits, on: tape)
        return try mix(routed, dense, weights, on: tape)
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
