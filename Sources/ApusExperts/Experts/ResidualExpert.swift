import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width.

/// PR-MoE's dense expert beside the routed ones: `y = c0 * moe(x) + c1 * dense(x)`, `(c0, c1) = softmax(x w^T + b)`
/// (DeepSpeed-MoE section 3.1, with the learned coefficient of its code).
public struct ResidualExpert {
    /// The dense expert.
    public let expert: FeedForward
    /// (2, D).
    public let coefficient: any Weight
    /// (2).
    public let bias: any Weight

    /// A residual expert over the given weights.
    public init(expert: FeedForward, coefficient: any Weight, bias: any Weight) {
        self.expert = expert
        self.coefficient = coefficient
        self.bias = bias
    }

    /// Mixes the routed result (T, D) with the dense expert's on `x` (T, D).
    public func callAsFunction(_ x: Variable, mixedWith routed: Variable, on tape: Tape) throws -> Variable {
        let dense = try expert(x, on: tape)
        let logits = try Linear(weight: coefficient, bias: bias)(x, on: tape, outputType: .f32)
        let weights = try softmax(logits, on: tape)
        return try mix([routed, dense], weights, on: tape)
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

    /// A combine whose two "choices" are the branches: the rows of both, one after the other, weighted and summed.
    private func mix(_ branches: [Variable], _ weights: Variable, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let (tokens, width) = (branches[0].shape[0], branches[0].shape[1])
        let rows = try backend.empty(Shape(2 * tokens, width), branches[0].dtype)
        for (index, branch) in branches.enumerated() {
            try backend.copy(branch.tensor, into: rows[index * tokens..<(index + 1) * tokens])
        }
        let slots = (0..<tokens).flatMap { [Int32($0), Int32(tokens + $0)] }
        let slotToRow = try backend.allocator.tensor(slots, Shape(slots.count), .activations)
        let y = try backend.empty(Shape(tokens, width), rows.dtype)
        try backend.combineRows(rows, slotToRow: slotToRow, weights: weights.tensor, choices: 2, into: y, adds: false)
        return tape.record("residual_mix", inputs: branches + [weights], output: y) { flow in
            guard let dy = flow.output() else { return }
            let drows = try flow.backend.empty(rows.shape, rows.dtype)
            let dweights = try flow.backend.empty(weights.shape, .f32)
            try flow.backend.combineRowsBackward(
                dy, rows: rows, slotToRow: slotToRow, weights: weights.tensor, choices: 2, drows: drows,
                dweights: dweights)
            for (index, branch) in branches.enumerated() {
                let part = drows[index * tokens..<(index + 1) * tokens]
                let gradient = try flow.backend.empty(part.shape, part.dtype)
                try flow.backend.copy(part, into: gradient)
                try flow.accumulate(gradient, into: branch)
            }
            try flow.accumulate(dweights, into: weights)
        }
    }
}
