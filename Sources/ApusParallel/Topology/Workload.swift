// Shape letters: F feed-forward width, E experts, V vocabulary.

/// What a layout divides among its ranks: the sizes of a model and of its batch that a degree has to fit.
public struct Workload: Sendable, Equatable {
    /// The feed-forward part of a block.
    public enum FeedForward: Sendable, Hashable {
        /// A dense layer of width F.
        case dense(width: Int)
        /// E experts of width F each.
        ///
        /// - `dense`: widths of the dense layers beside them: shared and residual experts.
        case experts(Int, width: Int, dense: [Int] = [])
    }

    /// Sequences of a step and how they belong together.
    public struct Batch: Sendable, Equatable {
        /// Sequences of a step, over all ranks.
        public let sequences: Int
        /// Most sequences of one forward and backward, on one rank.
        public let microBatch: Int
        /// Consecutive sequences that stay together: a balance group, which is whole routing groups.
        public let group: Int

        /// A batch that is computed at once unless told otherwise.
        public init(sequences: Int, microBatch: Int? = nil, group: Int = 1) {
            precondition(group >= 1, "a group has at least one sequence")
            self.sequences = sequences
            self.microBatch = microBatch ?? sequences
            self.group = group
        }
    }

    /// Query heads.
    public let heads: Int
    /// Key and value heads.
    public let keyValueHeads: Int
    /// V.
    public let vocabulary: Int
    /// The feed-forward part of each layer.
    public let layers: [FeedForward]
    /// The batch; `nil` when nothing is trained.
    public let batch: Batch?

    /// A model and its batch.
    public init(heads: Int, keyValueHeads: Int? = nil, vocabulary: Int, layers: [FeedForward], batch: Batch? = nil) {
        self.heads = heads
        self.keyValueHeads = keyValueHeads ?? heads
        self.vocabulary = vocabulary
        self.layers = layers
        self.batch = batch
    }

    /// Whether any layer has experts.
    var hasExperts: Bool { layers.contains { if case .experts = $0 { true } else { false } } }
}
