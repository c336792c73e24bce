public import ApusExperts
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width.

/// What passes from one stage to the next: the residual stream, and the last branch's output that is not yet added.
///
/// The addition is left to the next norm, which does it in the same pass over memory. So ``stream`` is the last block's state
/// after attention, which the next block's experts may read by a shortcut.
public struct Hidden {
    /// (T, D).
    public var stream: Variable
    /// (T, D), to be added to ``stream``; `nil` at the start.
    public var branch: Variable?
    /// (T, D): the last block's input, where the next block's experts read that; else `nil`.
    public var earlier: Variable?
    /// The next block's experts at work on an earlier state, when they were begun ahead; else `nil`. It stays within a range
    /// of stages: another range begins them itself, from the states above.
    var routed: RoutedBranch?

    /// A state between stages.
    public init(stream: Variable, branch: Variable? = nil, earlier: Variable? = nil) {
        self.stream = stream
        self.branch = branch
        self.earlier = earlier
    }

    /// The variables, those that are there.
    var variables: [Variable] { [stream] + [branch, earlier].compactMap(\.self) }

    /// The same state in other variables, as many as ``variables``.
    func replacing(_ variables: [Variable]) -> Hidden {
        precondition(variables.count == self.variables.count)
        var rest = variables.dropFirst()
        var copy = Hidden(
            stream: variables[0], branch: branch == nil ? nil : rest.popFirst(),
            earlier: earlier == nil ? nil : rest.popFirst())
        copy.routed = routed
        return copy
    }
}

/// Token ids, or the pixels of patches, to the residual stream.
public struct EmbedStage {
    /// The tables, or the projection.
    public let embedding: any EmbeddingLayer

    /// Token ids (T) `i32`, or pixels (T * P), to (T, D).
    public func callAsFunction(_ tokens: Tensor, _ context: ForwardContext) throws -> Hidden {
        Hidden(stream: try embedding(tokens, context))
    }
}

/// One transformer block: attention, then a dense or mixture-of-experts feed-forward layer, each behind a norm.
///
/// The experts of a mixture may read an earlier state (ScMoE, Cai et al. 2024): then they are a ``RoutedBranch``, begun as
/// soon as that state is there, perhaps while the block before computes, and joined at the end.
public struct Block {
    /// Global layer index.
    public let layer: Int
    /// Before attention.
    public let attentionNorm: Norm
    /// Mixes tokens.
    public let attention: any AttentionLayer
    /// Before the feed-forward layer.
    public let feedForwardNorm: Norm
    /// What leads from an earlier state to the experts; `nil` where they read the block's own.
    public let shortcut: Shortcut?
    /// Computes each token.
    public let feedForward: FeedForwardPart
    /// Whether the next block's experts read this one's input.
    public let handsOnInput: Bool

    /// The way of an earlier state to a block's experts.
    public struct Shortcut {
        /// Where it begins.
        public let configuration: ShortcutConfiguration
        /// Before the experts; of its own, for the states differ in scale.
        public let norm: Norm
    }

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
    ///
    /// - Parameter next: The block that follows, if its experts may be begun here; it is then called with the result.
    public func callAsFunction(_ hidden: Hidden, _ context: MoEContext, next: Block? = nil) throws -> Output {
        let tape = context.forward.tape
        var stream = hidden.stream
        var normalized: Variable
        // Begun in the block before, the experts compute now: between what hides the way there and what hides that back.
        try hidden.routed?.compute()
        var routed = try hidden.routed ?? begin(.attention, stream, context) ?? begin(.input, hidden.earlier, context)
        if let branch = hidden.branch {
            (stream, normalized) = try attentionNorm.addingResidual(stream, branch, on: tape)
        } else {
            normalized = try attentionNorm(stream, on: tape)
        }
        if routed == nil { routed = try begin(.output, stream, context) }
        var ahead = try next?.begin(.input, stream, context)
        let earlier = handsOnInput && ahead == nil ? stream : nil
        let mixed = try attention(normalized, context.forward)
        (stream, normalized) = try feedForwardNorm.addingResidual(stream, mixed, on: tape)
        if ahead == nil { ahead = try next?.begin(.attention, stream, context) }
        try routed?.compute()
        let output = try computed(normalized, routed, context)
        var result = Hidden(stream: stream, branch: output.hidden, earlier: earlier)
        result.routed = ahead
        return Output(hidden: result, routing: output.routing)
    }

    /// Begins the experts on `state` (T, D) if that is what they read.
    private func begin(
        _ position: ShortcutConfiguration.Position, _ state: Variable?, _ context: MoEContext
    ) throws -> RoutedBranch? {
        guard let shortcut, shortcut.configuration.position == position, case .moe(let layer) = feedForward else {
            return nil
        }
        guard let state else { preconditionFailure("the block before layer \(self.layer) hands its input on") }
        return try layer.begin(shortcut.norm(state, on: context.forward.tape), context)
    }

    /// The feed-forward part's result for the state after attention, and its routing.
    private func computed(
        _ normalized: Variable, _ routed: RoutedBranch?, _ context: MoEContext
    ) throws -> (hidden: Variable, routing: Routing?) {
        switch feedForward {
        case .dense(let layer): return (try layer(normalized, on: context.forward.tape), nil)
        case .moe(let layer):
            let output =
                if let routed {
                    try shortcut?.configuration.isDual == true
                        ? layer(normalized, beside: routed, context) : layer(normalized, joining: routed, context)
                } else {
                    try layer(normalized, context)
                }
            return (output.hidden, output.routing)
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
