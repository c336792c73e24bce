public import ApusNN
public import ApusTensor

/// How a parameter may be cut over the ranks that compute a layer together: what each of them can hold alone.
public enum Cut: Sendable, Equatable {
    /// Not at all: every rank that holds it reads the same tokens and computes its whole gradient.
    case whole
    /// Not at all, and it works on the residual stream token by token: norms, biases after a sum, positions.
    case stream
    /// Not at all, but each head reads it for itself: the norm of queries or keys by head, and what compresses them for all
    /// heads.
    case eachHead
    /// Along `dimension`, which is made of this many heads.
    case heads(Int, dimension: Int)
    /// Along `dimension`, the hidden width of a dense feed-forward layer or the channels of a convolution.
    case hidden(dimension: Int)
    /// Along `dimension`, the hidden width of one of the `experts` routed experts of `layer`, in whole multiples of `unit`.
    case expertHidden(dimension: Int, unit: Int, layer: Int, experts: Int)
    /// Along dimension 0, the vocabulary.
    case vocabulary
}

/// What a rank has of a parameter.
public struct Holding: Sendable, Equatable {
    /// The part; `nil` for all.
    public let shard: Shard?
    /// Who else holds the same.
    public let sharing: Sharing

    /// A part, or all of a parameter.
    public init(shard: Shard? = nil, sharing: Sharing = Sharing()) {
        self.shard = shard
        self.sharing = sharing
    }
}

/// What one rank holds and computes of a model whose layers are divided over ranks.
///
/// Whoever builds a model declares every parameter with its ``Cut``, makes the layers over what is held as if that were
/// all, and hands each to the partition, which puts in its place what computes the same together with the other ranks.
/// Everything is the whole model unless a partition says otherwise.
public protocol Partition {
    /// What is here of the parameter `name` of `shape`.
    ///
    /// - Throws: when the shape cannot be cut like that.
    func holding(of name: String, _ shape: Shape, cut: Cut) throws -> Holding
    /// This rank's part in what the ranks that hold the same parameters divide among them.
    func share(of sharing: Sharing) -> StateShare
    /// Which of a layer's `count` experts are here.
    func experts(of count: Int, layer: Int) throws -> Range<Int>
    /// The norm of queries and keys over the whole projection; `nil` when all heads are here.
    func projectionNorm(layer: Int) -> (any DividedRowNorm)?
    /// In place of attention with the heads that are here, or a convolution with the channels.
    func attention(_ local: any DivisibleAttention) -> any AttentionLayer
    /// In place of a block's feed-forward layer with the hidden width that is here.
    func feedForward(_ local: FeedForward, layer: Int) -> any FeedForwardLayer
    /// In place of the shared or residual expert of a mixture, which reads the mixture's tokens.
    func denseExpert(_ local: FeedForward, layer: Int) -> any FeedForwardLayer
    /// In place of a mixture with the experts that are here, of `experts`.
    func mixture(_ local: MoELayer, experts: Int) throws -> MoELayer
    /// In place of an embedding with the rows that are here, of `vocabulary`.
    func embedding(_ local: Embedding, vocabulary: Int) -> any EmbeddingLayer
    /// In place of an embedding of patches, which is whole on every rank.
    func embedding(_ local: PatchEmbedding) -> any EmbeddingLayer
    /// In place of the head's loss with the rows that are here, of `vocabulary`.
    func loss(_ local: LanguageModelLoss, vocabulary: Int) -> any LossLayer
}

extension Partition {
    public func holding(of name: String, _ shape: Shape, cut: Cut) throws -> Holding { Holding() }
    public func share(of sharing: Sharing) -> StateShare { .whole }
    public func experts(of count: Int, layer: Int) throws -> Range<Int> { 0..<count }
    public func projectionNorm(layer: Int) -> (any DividedRowNorm)? { nil }
    public func attention(_ local: any DivisibleAttention) -> any AttentionLayer { local }
    public func feedForward(_ local: FeedForward, layer: Int) -> any FeedForwardLayer { local }
    public func denseExpert(_ local: FeedForward, layer: Int) -> any FeedForwardLayer { local }
    public func mixture(_ local: MoELayer, experts: Int) throws -> MoELayer { local }
    public func embedding(_ local: Embedding, vocabulary: Int) -> any EmbeddingLayer { local }
    public func embedding(_ local: PatchEmbedding) -> any EmbeddingLayer { local }
    public func loss(_ local: LanguageModelLoss, vocabulary: Int) -> any LossLayer { local }
}

/// The partition of one rank: it holds and computes everything.
public struct WholeModel: Partition {
    /// The whole model.
    public init() {}
}
