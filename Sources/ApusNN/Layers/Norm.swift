import ApusKernels
import ApusTensor

// Shape letters: T tokens, D model width.

/// RMSNorm, or LayerNorm when there is a bias, over rows (T, D).
public struct Norm {
    /// (D).
    public let weight: any Weight
    /// (D); present in LayerNorm only.
    public let bias: (any Weight)?
    /// Added under the root.
    public let epsilon: Float

    /// A norm over the given weights: LayerNorm with a bias, RMSNorm without.
    public init(weight: any Weight, bias: (any Weight)? = nil, epsilon: Float) {
        self.weight = weight
        self.bias = bias
        self.epsilon = epsilon
    }

    /// (T, D) to (T, D).
    public func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let y = try backend.empty(x.shape, x.dtype)
        let statistics = try Statistics(rows: x.shape[0], hasMean: bias != nil, tape: tape)
        try forward(x.tensor, into: y, statistics, backend)
        return tape.record("norm", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            try flow.accumulate(into: x) { dx, adds in
                try backward(dy, x: x.tensor, into: dx, adds: adds, statistics, flow.backend)
            }
        }
    }

    /// `(x + residual, norm(x + residual))`: a residual addition and the norm that follows, in one pass.
    public func addingResidual(
        _ x: Variable, _ residual: Variable, on tape: Tape
    ) throws -> (sum: Variable, normalized: Variable) {
        let backend = tape.backend
        let sum = try backend.empty(x.shape, x.dtype)
        let y = try backend.empty(x.shape, x.dtype)
        let statistics = try Statistics(rows: x.shape[0], hasMean: bias != nil, tape: tape)
        if bias == nil {
            try weight.withWeights(on: backend.stream) {
                try backend.addRMSNorm(
                    x.tensor, residual: residual.tensor, weight: $0, epsilon: epsilon, sum: sum, into: y,
                    rstd: statistics.rstd)
            }
        } else {
            try backend.add(x.tensor, residual.tensor, into: sum)
            try forward(sum, into: y, statistics, backend)
        }
        let outputs = tape.record("add_norm", inputs: [x, residual], outputs: [sum, y]) { flow in
            // The gradient of the sum is what came down the residual stream plus what came through the norm.
            let total: Tensor
            let carried = flow.takeOutput(0)
            if let dy = flow.output(1) {
                if let carried {
                    total = try flow.backend.exclusive(carried)
                    try backward(dy, x: sum, into: total, adds: true, statistics, flow.backend)
                } else {
                    total = try flow.backend.empty(sum.shape, sum.dtype)
                    try backward(dy, x: sum, into: total, adds: false, statistics, flow.backend)
                }
            } else if let carried {
                total = carried
            } else {
                return
            }
            try flow.accumulate(total, into: x)
            try flow.accumulate(total, into: residual)
        }
        return (outputs[0], outputs[1])
    }

    /// What the backward needs of each row.
    private struct Statistics {
        let mean: Tensor?
        let rstd: Tensor?

        init(rows: Int, hasMean: Bool, tape: Tape) throws {
            rstd = tape.isRecording ? try tape.backend.empty(Shape(rows), .f32) : nil
            mean = tape.isRecording && hasMean ? try tape.backend.empty(Shape(rows), .f32) : nil
        }
    }

    private func forward(_ x: Tensor, into y: Tensor, _ statistics: Statistics, _ backend: any Backend) throws {
        try weight.withWeights(on: backend.stream) { weight in
            guard let bias else {
                return try backend.rmsNorm(x, weight: weight, epsilon: epsilon, into: y, rstd: statistics.rstd)
            }
            try bias.withWeights(on: backend.stream) {
                try backend.layerNorm(
                    x, weight: weight, bias: $0, epsilon: epsilon, into: y, mean: statistics.mean, rstd: statistics.rstd
                )
            }
        }
    }

    private func backward(
        _ dy: Tensor, x: Tensor, into dx: Tensor, adds: Bool, _ statistics: Statistics, _ backend: any Backend
    ) throws {
        guard let rstd = statistics.rstd else { preconditionFailure("backward of a norm that was not recorded") }
        try weight.withWeights(on: backend.stream) { weights in
            if let mean = statistics.mean {
                try backend.layerNormBackward(
                    dy, x: x, weight: weights, mean: mean, rstd: rstd, into: dx, adds: adds,
                    weightGradient: try weight.gradient(), biasGradient: try bias?.gradient())
            } else {
                try backend.rmsNormBackward(
                    dy, x: x, weight: weights, rstd: rstd, into: dx, adds: adds, weightGradient: try weight.gradient())
            }
        }
    }
}
