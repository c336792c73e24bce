import Glibc

/// A gate that begins dense and ends sparse (DTS-Gate, EvoMoE, Nie et al. 2021).
///
/// Scores are `softmax((logits + Gumbel noise) / temperature)`. While the temperature is high a token's weights are even and
/// many experts compute it; as it falls they gather on one. Experts whose weight is below the threshold are skipped, all but
/// the best. After the last of ``steps`` steps, and outside training, there is no noise and a token has one expert.
public struct DenseToSparse: Sendable, Equatable {
    /// Temperature of the first step.
    public var start: Float
    /// Temperature from the end of the schedule on.
    public var end: Float
    /// Steps in which it falls, by the same factor in each.
    public var steps: Int
    /// Weight below which an expert is skipped.
    public var threshold: Float

    /// A schedule.
    public init(start: Float = 2, end: Float = 0.3, steps: Int, threshold: Float = 0.01) {
        self.start = start
        self.end = end
        self.steps = steps
        self.threshold = threshold
    }

    /// Whether the gate is sparse: one expert, no noise. `nil` stands for a pass outside training.
    public func isSparse(step: Int?) -> Bool { step.map { $0 > steps } ?? true }

    /// The temperature in a step, counted from 1.
    public func temperature(step: Int?) -> Float {
        guard let step, step <= steps, steps > 1 else { return isSparse(step: step) ? end : start }
        return start * pow(end / start, Float(step - 1) / Float(steps - 1))
    }
}
