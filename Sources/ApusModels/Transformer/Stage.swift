public import ApusExperts
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width.

/// What passes from one stage to the next: the residual stream, and the last branch's output that is not yet added.
///
/// The addition is left to the next norm, which does it in the same pass over memory.
public struct Hidden {
    /// (T, D).
    public var stream: Variable
    /// (T, D), to be added to ``stream``; `nil` at the start.
    public var branch: Variable?

    /// A state between stages.
    public init(stream: Variable, branch: Variable? = nil) {
        self.stream = stream
        self.branch = branch
    }
}

/// Token ids to the residual stream.
public struct EmbedStage {
    /// The tables.
    public let embedding: any EmbeddingLayer

    /// Token ids (T) `i32` to (T, D).
    public func callAsFunction(_ tokens: Tensor, _ context: ForwardContext) throws -> Hidden {
        Hidden(stream: try embedding(tokens, context))
    }
}

/// One transformer block: attention, then a dense or mixture-of-experts feed-forward layer, each behind a norm.
public struct Block {
    /// Global layer index.
    public let layer: Int
    /// Before attention.
    public let attentionNorm: Norm
    /// Mixes tokens.
    public let attention: any AttentionLayer
    /// Before the feed-forward layer.
    public let feedForwardNorm: Norm
    /// Computes each token.
    public let feedForward: FeedForwardPart

    /// The two kinds of feed-forward layer.
    public enum FeedForwardPart {
        /// One for all tokens.
        case dense(any FeedForwardLayer)
        /// A choice of experts for each token.
        case moe(MoELayer)
    }

    /// What a block yields.
    public struct Output {
        /// The state after the block.
        public let hidden: Hidden
        /// The routing of a mixture-of-experts block.
        public let routing: Routing?
    }

    /// (T, D) to (T, D).
    public func callAsFunction(_ hidden: Hidden, _ context: MoEContext) throws -> Output {
        let tape = context.forward.tape
        var stream = hidden.stream
        var normalized: Variable
        if let branch = hidden.branch {
            (stream, normalized) = try attentionNorm.addingResidual(stream, branch, on: tape)
        } else {
            normalized = try attentionNorm(stream, on: tape)
        }
        let mixed = try attention(normalized, context.forward)
        (stream, normalized) = try feedForwardNorm.addingResidual(stream, mixed, on: tape)
        switch feedForward {
        case .dense(let layer):
            return Output(hidden: Hidden(stream: stream, branch: try layer(normalized, on: tape)), routing: nil)
        case .moe(let layer):
            let output = try layer(normalized, context)
            return Output(hidden: Hidden(stream: stream, branch: output.hidden), routing: output.routing)
        }
    }
}

/// The residual stream to logits, or straight to the loss.
public struct HeadStage {
    /// The last norm.
    public let norm: Norm
    /// The product with the vocabulary, and the cross-entropy.
    public let loss: any LossLayer

    /// The normalised state (T, D) that the head's product reads.
    public func normalized(_ hidden: Hidden, on tape: Tape) throws -> Variable {
        guard let branch = hidden.branch else { return try loss.enter(norm(hidden.stream, on: tape), on: tape) }
        return try loss.enter(norm.addingResidual(hidden.stream, branch, on: tape).normalized, on: tape)
    }
}
