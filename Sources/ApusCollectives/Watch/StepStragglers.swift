import ApusTensor

/// What one step took on one rank.
public struct StepTime: Sendable, Equatable {
    /// Seconds of the step.
    public let seconds: Double
    /// Seconds of it in which the rank waited for others: ``OperationTotals/exposedSeconds``, where they are known.
    public let waited: Double

    /// A step's time.
    public init(seconds: Double, waited: Double) {
        self.seconds = seconds
        self.waited = waited
    }
}

/// Tells of ranks that are slow for many steps, and of those that no longer are.
///
/// Ranks that meet in each step need the same time for it, so that the time says nothing about who was slow: a slow rank
/// is the one that waits least. A rank is behind in a step when the ranks wait longer than it does, by the median, by at
/// least ``threshold`` of the step. Fewer than half of the ranks can be seen to be behind: where most are, the few others
/// are the ones that differ, by waiting more, and nothing is said.
public struct StepStragglers: Sendable {
    /// The part of a step that the others must lose.
    public let threshold: Double
    /// Steps in a row that a rank must be behind, or not be, before it is said.
    public let patience: Int
    private var ranks: [Record]

    private struct Record {
        /// Whether it was said to be slow, and since when.
        var slowSince: Int?
        /// The first of the latest steps in a row that contradict what was said last, and how many they are.
        var turn: (first: Int, steps: Int)?
        /// What the others waited longer in those steps, and how long those took, in seconds.
        var lag = 0.0
        var seconds = 0.0
    }

    /// Nobody is slow yet.
    public init(ranks: Int, threshold: Double = 0.1, patience: Int = 10) {
        precondition(ranks > 0 && threshold > 0 && patience > 0)
        self.threshold = threshold
        self.patience = patience
        self.ranks = Array(repeating: Record(), count: ranks)
    }

    /// The ranks that were said to be slow, with the step since which they are.
    public var slow: [(rank: Int, since: Int)] {
        ranks.indices.compactMap { rank in ranks[rank].slowSince.map { (rank, $0) } }
    }

    /// Takes note of a step of all ranks, by rank.
    ///
    /// - Returns: One line for each rank that has now been slow for ``patience`` steps, or has now recovered.
    public mutating func note(step: Int, _ times: [StepTime]) -> [String] {
        precondition(times.count == ranks.count, "\(times.count) times of \(ranks.count) ranks")
        let waits = times.map(\.waited).sorted()
        let middle = waits.count / 2
        let median = waits.count % 2 == 1 ? waits[middle] : (waits[middle - 1] + waits[middle]) / 2
        // Of two ranks the median lies between them; the other one is what is meant.
        let typical = waits.count == 2 ? waits[1] : median
        return times.indices.compactMap { rank in
            note(rank, step, lag: typical - times[rank].waited, seconds: times[rank].seconds)
        }
    }

    private mutating func note(_ rank: Int, _ step: Int, lag: Double, seconds: Double) -> String? {
        var record = ranks[rank]
        defer { ranks[rank] = record }
        let isBehind = seconds > 0 && lag >= threshold * seconds
        guard isBehind != (record.slowSince != nil) else {
            record.turn = nil
            record.lag = 0
            record.seconds = 0
            return nil
        }
        let turn = (first: record.turn?.first ?? step, steps: (record.turn?.steps ?? 0) + 1)
        record.turn = turn
        record.lag += lag
        record.seconds += seconds
        guard turn.steps >= patience else { return nil }
        let (lost, taken, before) = (record.lag, record.seconds, record.slowSince)
        record = Record()
        if let before {
            return "rank \(rank) is no longer slow since step \(turn.first); it was from step \(before) on"
        }
        record.slowSince = turn.first
        let tenths = Int((lost / Double(turn.steps) * 1e4).rounded())
        return """
            rank \(rank) is slow since step \(turn.first): the others wait \(tenths / 10).\(tenths % 10) ms longer in each \
            step (\(Int((lost / taken * 100).rounded())) % of it)
            """
    }
}

extension Collective {
    /// Every rank's time of a step, by rank, on all of them. Every rank calls this.
    ///
    /// - Throws: ``CollectiveError``.
    public func gatherTimes(_ own: StepTime) throws -> [StepTime] {
        let memory = CachingAllocator()
        let input = try memory.tensor([Float(own.seconds), Float(own.waited)], Shape(2))
        let output = try memory.empty(Shape(2 * size), .f32, .data)
        try allGather(input, into: output)
        let numbers = output.floats().map(Double.init)
        return (0..<size).map { StepTime(seconds: numbers[2 * $0], waited: numbers[2 * $0 + 1]) }
    }
}
