public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, R routed rows, G routing groups.

/// Which experts each token goes to, and the order of the rows that follow from it.
///
/// A decision is a value: it can be copied, kept by the tape, recorded, and replayed in another pass over the same
/// tokens, where weights and losses are formed anew from the scores of that pass.
public struct RoutingDecision: Sendable {
    /// (T, K) `i32`: the router's choice, before any is dropped.
    public let ids: Tensor
    /// (T, K) `i32`: the choice after the token policy, -1 where it is dropped.
    public let kept: Tensor
    /// E.
    public let experts: Int
    /// C of each routing group; empty when nothing is dropped.
    public let capacities: [Int]
    /// Whether rows are padded to the capacities.
    public let isPadded: Bool
    /// The order of the routed rows.
    public let permutation: RoutingPermutation
    /// Whether the capacities depend on more than the numbers of tokens, so that other ranks' are not known from one's own.
    public let capacitiesVary: Bool

    /// A decision.
    init(
        ids: Tensor, kept: Tensor, experts: Int, capacities: [Int], isPadded: Bool, permutation: RoutingPermutation,
        capacitiesVary: Bool = false
    ) {
        self.ids = ids
        self.kept = kept
        self.experts = experts
        self.capacities = capacities
        self.isPadded = isPadded
        self.permutation = permutation
        self.capacitiesVary = capacitiesVary
    }

    /// T.
    public var tokenCount: Int { ids.shape[0] }
    /// K.
    public var choices: Int { ids.shape[1] }
    /// Most routed rows that there can be: what buffers are made for. The host does not know R.
    public var rowBound: Int { permutation.rowToToken.count }
}

/// Records each layer's decisions during a pass, or replays them.
///
/// Replaying is how a checkpointed block computes the same values twice, how two layouts are compared with routing held
/// fixed, and how gradients are checked by finite differences.
public final class RoutingTrace {
    private var decisions: [Int: RoutingDecision]
    private let isReplaying: Bool

    /// What is added to a layer's index for its second pass over the experts; no model has as many layers.
    static let secondPass = 1 << 15

    /// The layer that a key of ``recorded`` and ``scores`` is of.
    public static func layer(ofKey key: Int) -> Int { key % secondPass }

    /// A trace that records.
    public init() {
        decisions = [:]
        isReplaying = false
    }

    /// A trace that replays the decisions of layers.
    public init(replaying decisions: [Int: RoutingDecision]) {
        self.decisions = decisions
        isReplaying = true
    }

    /// A trace that replays what this one has recorded.
    public func replay() -> RoutingTrace { RoutingTrace(replaying: decisions) }

    /// A trace that replays what `change` makes of each recorded decision.
    func replay(_ change: (RoutingDecision) throws -> RoutingDecision) rethrows -> RoutingTrace {
        RoutingTrace(replaying: try decisions.mapValues(change))
    }

    /// The decision of `layer`, replayed when there is one to replay, else made by `decide` and recorded. For a layer's second
    /// pass `layer` is its key (``MoEContext/key(_:)``).
    func decision(layer: Int, _ decide: () throws -> RoutingDecision) rethrows -> RoutingDecision {
        if isReplaying, let decision = decisions[layer] { return decision }
        let decision = try decide()
        decisions[layer] = decision
        return decision
    }

    /// The decisions of all layers, those of second passes under keys of their own (``layer(ofKey:)``).
    public var recorded: [Int: RoutingDecision] { decisions }

    /// Whether ``scores`` are kept of what is recorded.
    public var keepsScores = false
    /// (T, E) of each layer, if they are kept: what its experts were chosen by, selection bias and noise included.
    public private(set) var scores: [Int: Tensor] = [:]

    /// Keeps what the experts of `layer` were chosen by.
    func note(_ scores: Tensor, layer: Int, bias: Tensor?, _ backend: any Backend) throws {
        guard keepsScores, !isReplaying else { return }
        let kept = try backend.empty(scores.shape, .f32)
        try backend.copy(scores, into: kept)
        if let bias { try backend.addBias(kept, bias: bias, into: kept) }
        self.scores[layer] = kept
    }

    /// The recorded decision of `layer`.
    public subscript(layer: Int) -> RoutingDecision? { decisions[layer] }
}
