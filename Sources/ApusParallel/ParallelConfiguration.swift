public import ApusCollectives
public import ApusNN

/// How a run is divided over ranks: a recipe's group of keys `layout`.
public struct ParallelConfiguration: Sendable, Equatable {
    /// The grid of ranks.
    public var layout: LayoutConfiguration
    /// What ranks with the same parameters divide among them. Key `layout.zero`.
    public var zero: ZeROStage
    /// Whether norms, residual additions and what is kept of them are divided by tokens over the tensor group (Korthikanti
    /// et al. 2022). Key `layout.sequence_parallel`.
    public var sequenceParallel: Bool
    /// Duplicate-token dropping (DeepSpeed-TED section 5.1). Key `layout.drop_duplicates`.
    public var dropsDuplicates: Bool
    /// Whether a sum of which each rank keeps a part is one reduce-scatter. Key `layout.fuse_reduce_scatter`.
    public var fusesReduceScatter: Bool
    /// Communication-aware checkpointing (DeepSpeed-TED section 5.2): whether blocks that run again in backward keep the
    /// outputs of their collectives. Key `layout.keep_collectives`.
    public var keepsCollectives: Bool
    /// Ranks on each node, for all-to-alls that go within nodes first; `nil` for flat ones. Key `layout.ranks_per_node`.
    public var ranksPerNode: Int?
    /// How long ranks wait for each other in one operation, seconds. Key `layout.timeout`.
    public var timeout: Int

    /// One rank, and what is best on several.
    public init(
        layout: LayoutConfiguration = LayoutConfiguration(), zero: ZeROStage = .optimizerState,
        sequenceParallel: Bool = false, dropsDuplicates: Bool = true, fusesReduceScatter: Bool = true,
        keepsCollectives: Bool = true, ranksPerNode: Int? = nil, timeout: Int = 300
    ) {
        self.layout = layout
        self.zero = zero
        self.sequenceParallel = sequenceParallel
        self.dropsDuplicates = dropsDuplicates
        self.fusesReduceScatter = fusesReduceScatter
        self.keepsCollectives = keepsCollectives
        self.ranksPerNode = ranksPerNode
        self.timeout = timeout
    }

    /// What the collectives of a layer's experts do.
    var experts: ExpertParallelOptions {
        ExpertParallelOptions(
            dividesExperts: layout.expertTensor, dropsDuplicates: dropsDuplicates,
            fusesReduceScatter: fusesReduceScatter, hasSameCapacities: true)
    }

    /// Which collectives' outputs a checkpointed block keeps.
    public var keptOutputs: KeptOutputs { keepsCollectives ? .all : [] }

    /// The communicators of `layout` among the ranks of `world`. Blocks; every rank takes part.
    ///
    /// - Throws: as ``ParallelGroups/init(_:world:ranksPerNode:)``.
    public func groups(_ layout: Layout, world: any Collective) throws -> ParallelGroups {
        try ParallelGroups(layout, world: world, ranksPerNode: ranksPerNode)
    }

    /// What one rank of `groups` holds and computes of a model.
    public func partition(over groups: ParallelGroups) -> TensorPartition {
        TensorPartition(groups, dividesTokens: sequenceParallel, experts: experts)
    }
}
