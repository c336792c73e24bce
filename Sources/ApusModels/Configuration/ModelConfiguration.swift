public import ApusExperts
public import ApusKernels

/// What a decoder, or an encoder of images, is made of: the value that a recipe describes, a checkpoint keeps, and ``Transformer`` is built from.
public struct ModelConfiguration: Sendable, Equatable {
    /// The normalisation before attention, before the feed-forward layer, and at the end.
    public enum Norm: String, Sendable, CaseIterable {
        /// RMSNorm.
        case rms
        /// LayerNorm with bias.
        case layer
    }

    /// How a token's place enters the model.
    public enum Position: Sendable, Equatable {
        /// Rotary embedding of queries and keys, with this base.
        case rotary(theta: Double)
        /// A learned vector for each place, added to the token's.
        case learned
    }

    /// RMSNorm of queries and keys before they meet.
    public enum QueryKeyNorm: String, Sendable, CaseIterable {
        /// None (Mixtral).
        case none
        /// Over the whole projection (OLMoE).
        case projection
        /// Over each head (Qwen3).
        case head
    }

    /// The part of a block after attention.
    public enum FeedForward: Sendable, Equatable {
        /// A dense layer of this width.
        case dense(width: Int)
        /// A mixture of experts.
        case moe(MoEConfiguration)
    }

    /// V, entries of the vocabulary; of a model that classifies images, its classes.
    public var vocabulary: Int
    /// D, width of the residual stream.
    public var width: Int
    /// Query heads.
    public var heads: Int
    /// Key and value heads; a divisor of ``heads``.
    public var keyValueHeads: Int
    /// Width of one head of queries and keys; usually ``width`` / ``heads``.
    public var headWidth: Int
    /// Longest sequence.
    public var maximumPositions: Int
    /// Kind of norm.
    public var norm: Norm
    /// Added under the root of norms.
    public var normEpsilon: Float
    /// Kind of position.
    public var position: Position
    /// Norm of queries and keys.
    public var queryKeyNorm: QueryKeyNorm
    /// Whether the four attention projections have biases.
    public var attentionBias: Bool
    /// Queries, keys and values are clamped to plus or minus this; `nil` for not (OLMoE's `clip_qkv`).
    public var attentionClip: Float?
    /// Keys that a query sees at most, counted back from itself; `nil` for all.
    public var slidingWindow: Int?
    /// Non-linearity of dense feed-forward layers.
    public var activation: Activation
    /// The feed-forward part of each layer; its count is the number of layers.
    public var feedForward: [FeedForward]
    /// Whether the head reads the embedding's weights.
    public var tiedEmbeddings: Bool
    /// Standard deviation of initial weights.
    public var initialDeviation: Float
    /// s, with which the matrices of attention, feed-forward layers, experts and routers begin at a variance of s / inputs in
    /// place of the deviation (Switch Transformers section 2.4: 0.1); `nil` for the deviation.
    public var initialScale: Float?
    /// Compressed keys and values; `nil` for attention with projections of their own.
    public var latent: LatentConfiguration?
    /// Rotary positions stretched to a longer context; `nil` for plain ones.
    public var yarn: YarnConfiguration?
    /// How images become sequences, of an encoder that classifies them; `nil` for a decoder of tokens.
    public var patches: PatchConfiguration?
    /// Layers that mix tokens by a short convolution; `nil` where all have attention.
    public var convolution: ConvolutionConfiguration?

    /// A model; everything but sizes and feed-forward parts has the common value of current models.
    public init(
        vocabulary: Int, width: Int, heads: Int, keyValueHeads: Int? = nil, headWidth: Int? = nil,
        maximumPositions: Int, norm: Norm = .rms, normEpsilon: Float = 1e-5,
        position: Position = .rotary(theta: 10_000),
        queryKeyNorm: QueryKeyNorm = .none, attentionBias: Bool = false, attentionClip: Float? = nil,
        slidingWindow: Int? = nil, activation: Activation = .swiglu, feedForward: [FeedForward],
        tiedEmbeddings: Bool = false, initialDeviation: Float = 0.02, initialScale: Float? = nil,
        latent: LatentConfiguration? = nil, yarn: YarnConfiguration? = nil, patches: PatchConfiguration? = nil,
        convolution: ConvolutionConfiguration? = nil
    ) {
        self.vocabulary = vocabulary
        self.width = width
        self.heads = heads
        self.keyValueHeads = keyValueHeads ?? heads
        self.headWidth = headWidth ?? latent?.keyWidth ?? width / max(heads, 1)
        self.maximumPositions = maximumPositions
        self.norm = norm
        self.normEpsilon = normEpsilon
        self.position = position
        self.queryKeyNorm = queryKeyNorm
        self.attentionBias = attentionBias
        self.attentionClip = attentionClip
        self.slidingWindow = slidingWindow
        self.activation = activation
        self.feedForward = feedForward
        self.tiedEmbeddings = tiedEmbeddings
        self.initialDeviation = initialDeviation
        self.initialScale = initialScale
        self.latent = latent
        self.yarn = yarn
        self.patches = patches
        self.convolution = convolution
    }

    /// Number of blocks.
    public var layers: Int { feedForward.count }

    /// The mixture of experts of layer `index`, or `nil` when it is dense.
    public func moe(layer index: Int) -> MoEConfiguration? {
        if case .moe(let configuration) = feedForward[index] { configuration } else { nil }
    }
}
