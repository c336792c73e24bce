/// What ranks could not do of something that all must do or none.
public struct RankFailures: Error, Sendable, Equatable {
    /// Why one rank could not.
    public struct Failure: Sendable, Equatable {
        /// Its rank in the world.
        public let rank: Int
        /// What it says.
        public let reason: String
    }

    /// What was to be done: `saving 'run/checkpoints/step-00000500'`.
    public let task: String
    /// Those that failed, in the order of ranks; at least one.
    public let failures: [Failure]
}

extension RankFailures: CustomStringConvertible {
    /// The task, the first rank that failed with its reason, and which others did.
    public var description: String {
        let first = failures.first.map { "rank \($0.rank): \($0.reason)" } ?? "no rank"
        guard failures.count > 1 else { return "\(task) failed on \(first)" }
        let others = failures.dropFirst().map { "\($0.rank)" }.joined(separator: ", ")
        return "\(task) failed on \(first) (and on rank \(others))"
    }
}
