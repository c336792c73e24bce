/// How long and on what a probe trains; the same for all models that it compares.
public struct ProbeSettings: Sendable, Equatable {
    /// Optimizer steps for each task.
    public var steps: Int
    /// B, sequences of a step.
    public var batch: Int
    /// Most tokens of a sequence.
    public var length: Int
    /// V, symbols that tasks are made of.
    public var symbols: Int
    /// Learning rate, reached after a tenth of the steps and gone at the end.
    public var learningRate: Double
    /// Batches of new sequences that accuracy is measured on.
    public var measuredBatches: Int
    /// Seed of weights and sequences.
    public var seed: UInt64

    /// Settings; minutes on two cores for models of a few million parameters.
    public init(
        steps: Int = 200, batch: Int = 16, length: Int = 64, symbols: Int = 32, learningRate: Double = 2e-3,
        measuredBatches: Int = 8, seed: UInt64 = 0
    ) {
        self.steps = steps
        self.batch = batch
        self.length = length
        self.symbols = symbols
        self.learningRate = learningRate
        self.measuredBatches = measuredBatches
        self.seed = seed
    }

    /// Refuses what no task can be made of.
    ///
    /// - Throws: ``ProbeError/invalid(name:value:expected:)``
    public func validate() throws(ProbeError) {
        let ranges = [
            ("steps", steps, 1...1 << 20), ("batch", batch, 1...1 << 16), ("length", length, 8...1 << 14),
            ("symbols", symbols, 4...1 << 16), ("measured batches", measuredBatches, 1...1 << 16),
        ]
        for (name, value, range) in ranges where !range.contains(value) {
            throw .invalid(
                name: name, value: "\(value)", expected: "from \(range.lowerBound) to \(range.upperBound)")
        }
        guard learningRate > 0, learningRate.isFinite else {
            throw .invalid(name: "learning rate", value: "\(learningRate)", expected: "a positive number")
        }
    }
}

/// What a caller can get wrong about a probe.
public enum ProbeError: Error, Sendable, Equatable {
    /// A setting has a value that it cannot have.
    case invalid(name: String, value: String, expected: String)
    /// A model became NaN or infinite while it learned a task.
    case notFinite(task: ProbeTask, step: Int, place: String)
}

extension ProbeError: CustomStringConvertible {
    /// What was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .invalid(let name, let value, let expected):
            "the probe's \(name) is \(value): it must be \(expected)"
        case .notFinite(let task, let step, let place):
            """
            step \(step) of the task \(task.rawValue) is not finite, first seen in \(place): use a lower learning rate, or \
            leave the task out
            """
        }
    }
}
