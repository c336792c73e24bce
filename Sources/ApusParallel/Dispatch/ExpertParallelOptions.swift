// Shape letters: F expert width.

/// How an ``ExpertParallelDispatcher`` goes about tensor parallelism.
public struct ExpertParallelOptions: Sendable, Equatable {
    /// Whether the experts' F is cut over the tensor group. If not, its ranks hold whole experts and share out the rows.
    public var dividesExperts: Bool
    /// Whether each rank of the tensor group, all of which hold the same tokens, sends its part of them only: duplicate
    /// token dropping (DeepSpeed-TED section 5.1), which for an all-to-all among ranks of equal tensor rank is
    /// DeepSpeed-MoE's parallelism-coordinated communication (section 5.3). Of p ranks in tensor groups of L, each
    /// exchanges 1 / L of the rows with p / L others, and one all-gather over the L brings the results together.
    ///
    /// Always so when experts are not divided: duplicates would reach an expert several times.
    public var dropsDuplicates: Bool
    /// Whether a sum of which each rank keeps a part is a reduce-scatter, not an all-reduce and a cut.
    public var fusesReduceScatter: Bool
    /// A promise that padded layers have the same capacities on all ranks, as when all ranks hold the same number of
    /// equal sequences: then nothing is announced before the exchange.
    public var hasSameCapacities: Bool

    /// Options; duplicates are dropped unless told otherwise.
    public init(
        dividesExperts: Bool = true, dropsDuplicates: Bool = true, fusesReduceScatter: Bool = true,
        hasSameCapacities: Bool = false
    ) {
        self.dividesExperts = dividesExperts
        self.dropsDuplicates = dropsDuplicates
        self.fusesReduceScatter = fusesReduceScatter
        self.hasSameCapacities = hasSameCapacities
    }
}
