public import ApusCollectives
public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, G routing groups.

/// What a MoE layer needs besides its input.
public struct MoEContext {
    /// Tape, layout, step and seed.
    public let forward: ForwardContext
    /// Records or replays decisions; `nil` when neither is wanted.
    public let trace: RoutingTrace?
    /// Collects loads and losses; `nil` when nobody reads them.
    public let report: RoutingReport?
    /// Tokens of the global batch that count: what losses that are means over tokens are divided by.
    public let globalTokens: Int
    /// Whether loads and probabilities are summed when the tape does not record either: for losses that are read, and
    /// reports. Generation does without.
    public let countsLoads: Bool
    /// Ranks that compute other sequences of the same pass, for losses over all of it; `nil` for none.
    public let batchRanks: (any Collective)?
    /// Whether the pass evaluates a loss, where a policy's capacity for evaluation holds. Generation is none.
    public let isEvaluation: Bool
    /// (T, K) `i32`: experts that the layer has chosen for these tokens in a pass before, and is to leave out in this one;
    /// `nil` for a layer's only pass or its first.
    public let avoided: Tensor?

    /// A context; `globalTokens` is this pass's own number of tokens unless the pass is part of a larger batch.
    public init(
        forward: ForwardContext, trace: RoutingTrace? = nil, report: RoutingReport? = nil, globalTokens: Int? = nil,
        countsLoads: Bool = true, batchRanks: (any Collective)? = nil, isEvaluation: Bool = false,
        avoided: Tensor? = nil
    ) {
        self.forward = forward
        self.trace = trace
        self.report = report
        self.globalTokens = globalTokens ?? forward.layout.tokenCount
        self.countsLoads = countsLoads
        self.batchRanks = batchRanks
        self.isEvaluation = isEvaluation
        self.avoided = avoided
    }

    /// The same context for a layer's second pass, which leaves out the experts that the first one chose.
    func avoiding(_ ids: Tensor) -> MoEContext {
        MoEContext(
            forward: forward, trace: trace, report: report, globalTokens: globalTokens, countsLoads: countsLoads,
            batchRanks: batchRanks, isEvaluation: isEvaluation, avoided: ids)
    }

    /// What tells the passes of all layers apart, in traces and draws: the layer's index, and for a second pass one that no
    /// layer has.
    public func key(_ layer: Int) -> Int { avoided == nil ? layer : layer + RoutingTrace.secondPass }
}

/// A decision together with what is differentiable about it.
public struct Routing {
    /// Which experts, and in which order the rows.
    public let decision: RoutingDecision
    /// (T, K) `f32` combine weights, 0 for dropped choices.
    public let weights: Variable
    /// (G, E) `f32`: sums of each expert's probability over the tokens of a group that count; `nil` when the router has
    /// no probabilities.
    public let probabilitySums: Variable?
    /// (G, E) `f32`: choices of each expert before dropping, by tokens that count; `nil` when nobody asks.
    public let choiceCounts: Tensor?

    /// The result of a router.
    public init(decision: RoutingDecision, weights: Variable, probabilitySums: Variable?, choiceCounts: Tensor?) {
        self.decision = decision
        self.weights = weights
        self.probabilitySums = probabilitySums
        self.choiceCounts = choiceCounts
    }
}

/// Chooses experts for tokens. Conforming to this protocol is how a program brings a router of its own.
public protocol Router {
    /// E.
    var experts: Int { get }
    /// The parameters of the router, none if it has none.
    var parameters: [Parameter] { get }
    /// Routes (T, D). Losses are registered on the tape as roots, already scaled.
    func route(_ x: Variable, layer: Int, _ context: MoEContext) throws -> Routing
    /// Adjusts what is not trained by gradients after a step, from the layer's `choices` in each pass of that step, (G, E)
    /// `f32` each, on the device.
    ///
    /// A step whose `gradientScale` (1) `f32` is not finite was not taken: then nothing may change. The device knows, the
    /// host may not yet; ops such as ``OptimizerOp/moveSelectionBias(_:choices:rate:gradientScale:)`` look themselves.
    func finishStep(choices: [Tensor], gradientScale: Tensor, backend: any Backend) throws
}

extension Router {
    /// Nothing to adjust.
    public func finishStep(choices: [Tensor], gradientScale: Tensor, backend: any Backend) throws {}
}
