public import ApusCollectives
public import ApusExperts
public import ApusNN
public import ApusTensor

// Shape letters: D model width, F hidden width, E experts, V vocabulary, N tensor-parallel ranks.

/// Tensor parallelism: N ranks that hold the same tokens compute every layer together (Megatron-LM, Shoeybi et al.
/// 2019; DeepSpeed-TED section 3).
///
/// 1. Attention is cut by heads, feed-forward layers and experts by F: the first product by its output, the second by
///    its input. One sum over the ranks ends each in forward, and one its gradient in backward.
/// 2. Embedding and head are cut by vocabulary, into shares that differ by one entry at most: V comes from a tokenizer
///    and rarely divides. Heads and F must divide, for the widest share is what all ranks wait for.
/// 3. Norms, routers and biases after a sum are whole on every rank. ``Sharing`` tells whose gradients the
///    ranks must still sum: norms of heads, and everything on the residual stream under sequence parallelism, which
///    shares out the stream's tokens between the layers (Korthikanti et al. 2022).
public struct TensorPartition: Partition {
    /// The ranks that compute together.
    public let group: any Collective
    /// Whether norms, residual additions and what the stream keeps for backward are divided by tokens.
    public let dividesTokens: Bool
    /// Among which ranks the experts of a layer are divided; `nil` when all of them are here.
    public let expertGroup: ((_ layer: Int) throws -> any Collective)?
    /// How the expert group of a layer lies on nodes, for hierarchical all-to-alls; `nil` for flat ones.
    public let expertNodes: ((_ layer: Int) throws -> HierarchicalAllToAll?)?
    /// How experts are divided over the tensor ranks too.
    public let experts: ExpertParallelOptions
    /// Whether expert groups are cut from all ranks, those of a tensor group next to each other, so that these hold
    /// different experts.
    let expertGroupsSpanTensorRanks: Bool
    private let stateShare: (@Sendable (Sharing) -> StateShare)?

    /// A partition over `group`.
    ///
    /// - Parameters:
    ///   - dividesTokens: Sequence parallelism; the tokens of a pass must then divide by the group's size.
    ///   - experts: What is done with the experts of mixtures.
    ///   - expertGroup: The ranks among which the experts of a layer are divided.
    ///   - expertNodes: How these lie on nodes; the same value for layers that share a group.
    public init(
        over group: any Collective, dividesTokens: Bool = false,
        experts: ExpertParallelOptions = ExpertParallelOptions(),
        expertGroup: ((_ layer: Int) throws -> any Collective)? = nil,
        expertNodes: ((_ layer: Int) throws -> HierarchicalAllToAll?)? = nil
    ) {
        self.group = group
        self.dividesTokens = dividesTokens && group.size > 1
        self.experts = experts
        self.expertGroup = expertGroup
        self.expertNodes = expertNodes
        expertGroupsSpanTensorRanks = false
        stateShare = nil
    }

    /// The partition of a rank of a layout.
    ///
    /// - Parameters:
    ///   - groups: The layout's communicators.
    ///   - dividesTokens: Sequence parallelism; the tokens of a pass must then divide by the tensor degree.
    ///   - experts: How tokens travel to experts. Whether tensor ranks divide them is the layout's to say.
    public init(_ groups: ParallelGroups, dividesTokens: Bool, experts: ExpertParallelOptions) {
        let layout = groups.layout
        group = groups.tensor
        self.dividesTokens = dividesTokens && layout.tensor > 1
        var options = experts
        options.dividesExperts = layout.expertTensor
        self.experts = options
        expertGroupsSpanTensorRanks = !layout.expertTensor
        // Ranks that hold whole experts share out their rows, also where an expert group is one rank.
        let isDivided = layout.expertDegrees != [1] || !layout.expertTensor && layout.tensor > 1
        expertGroup = isDivided ? { groups.expert(layer: $0) } : nil
        expertNodes = isDivided ? { groups.expertNodes(layer: $0) } : nil
        stateShare = groups.share
    }

    /// See ``Partition/holding(of:_:cut:)``.
    ///
    /// - Throws: ``PartitionError``.
    public func holding(of name: String, _ shape: Shape, cut: Cut) throws -> Holding {
        func share(_ dimension: Int, units: Int, _ kind: String) throws -> Holding {
            guard units > 0, units % group.size == 0 else {
                throw PartitionError.notDivisible(parameter: name, units: kind, count: units, ranks: group.size)
            }
            let width = shape[dimension] / group.size
            return Holding(
                shard: Shard(dimension: dimension, range: group.rank * width..<(group.rank + 1) * width))
        }
        switch cut {
        case .expertHidden(let dimension, let unit, let layer, let count):
            return try expertHolding(of: name, shape, dimension, unit: unit, layer: layer, experts: count)
        case _ where group.size == 1: return Holding()
        case .whole: return Holding(sharing: Sharing(overTensorRanks: .same))
        case .stream: return Holding(sharing: Sharing(overTensorRanks: dividesTokens ? .partial : .same))
        case .eachHead: return Holding(sharing: Sharing(overTensorRanks: .partial))
        case .heads(let count, let dimension): return try share(dimension, units: count, "heads")
        case .hidden(let dimension): return try share(dimension, units: shape[dimension], "hidden units")
        case .vocabulary:
            guard shape[0] >= group.size else {
                throw PartitionError.notDivisible(
                    parameter: name, units: "vocabulary entries", count: shape[0], ranks: group.size)
            }
            return Holding(shard: Shard(dimension: 0, range: group.ownShare(ofVocabulary: shape[0])))
        }
    }

    public func share(of sharing: Sharing) -> StateShare { stateShare?(sharing) ?? .whole }

    /// See ``Partition/experts(of:layer:)``.
    ///
    /// - Throws: ``PartitionError``, and what finding the layer's expert group throws.
    public func experts(of count: Int, layer: Int) throws -> Range<Int> {
        try expertShare(of: count, layer: layer).experts
    }

    public func projectionNorm(layer: Int) -> (any DividedRowNorm)? {
        group.size > 1 ? TensorParallelNorm(group: group, layer: layer) : nil
    }

    public func attention(_ local: any DivisibleAttention) -> any AttentionLayer {
        guard group.size > 1 else { return local }
        return TensorParallelAttention(local, boundary: boundary(local.layer))
    }

    public func feedForward(_ local: FeedForward, layer: Int) -> any FeedForwardLayer {
        guard group.size > 1 else { return local }
        return TensorParallelFeedForward(local: local, boundary: boundary(layer))
    }

    public func denseExpert(_ local: FeedForward, layer: Int) -> any FeedForwardLayer {
        guard group.size > 1 else { return local }
        // A mixture reads all tokens on every rank, whatever the stream around it does.
        return TensorParallelFeedForward(
            local: local, boundary: DividedLayerBoundary(group: group, dividesTokens: false, layer: layer))
    }

    public func mixture(_ local: MoELayer, experts count: Int) throws -> MoELayer {
        var dispatcher = local.dispatcher
        var bank = local.bank
        if let expertGroup {
            dispatcher = ExpertParallelDispatcher(
                experts: count, group: try expertGroup(local.layer), nodes: try expertNodes?(local.layer),
                tensor: group, options: experts, layer: local.layer)
        } else if group.size > 1, experts.dividesExperts {
            bank = TensorParallelBank(
                local: bank, boundary: DividedLayerBoundary(group: group, dividesTokens: false, layer: local.layer))
        }
        return MoELayer(
            layer: local.layer, router: local.router, dispatcher: dispatcher, bank: bank, shared: local.shared,
            residual: local.residual, chunks: local.chunks, dropout: local.dropout,
            boundary: dividesTokens ? ReplicatedLayerBoundary(group: group, layer: local.layer) : nil)
    }

    public func embedding(_ local: Embedding, vocabulary: Int) -> any EmbeddingLayer {
        guard group.size > 1 else { return local }
        return VocabularyParallelEmbedding(
            local, rows: group.ownShare(ofVocabulary: vocabulary), group: group, dividesTokens: dividesTokens)
    }

    public func embedding(_ local: PatchEmbedding) -> any EmbeddingLayer {
        precondition(!dividesTokens, "the tokens of images are not divided: Recipe.layout refuses it")
        return local
    }

    public func loss(_ local: LanguageModelLoss, vocabulary: Int) -> any LossLayer {
        guard group.size > 1 else { return local }
        return VocabularyParallelLoss(
            local, vocabulary: vocabulary, group: group, boundary: boundary(nil))
    }

    private func boundary(_ layer: Int?) -> DividedLayerBoundary {
        DividedLayerBoundary(group: group, dividesTokens: dividesTokens, layer: layer)
    }
}
