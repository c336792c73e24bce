public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

/// What a router that drops nothing makes of its logits.
public struct ExpertChoice: Sendable {
    /// (T, E) `f32`.
    public let scores: Tensor
    /// (T, K) `i32`, the best first.
    public let ids: Tensor
    /// (T, K) `f32`: combine weights.
    public let weights: Tensor
    /// Slots by expert.
    public let permutation: RoutingPermutation

    /// A choice made of its parts.
    public init(scores: Tensor, ids: Tensor, weights: Tensor, permutation: RoutingPermutation) {
        self.scores = scores
        self.ids = ids
        self.weights = weights
        self.permutation = permutation
    }
}

/// Gradients that arrive at a softmax router's outputs; what is left out is zero.
public struct GateGradients: Sendable {
    /// (T, K): at the combine weights.
    public var weights: Tensor?
    /// (G, E): at the sums of scores over groups.
    public var sums: Tensor?

    /// Gradients.
    public init(weights: Tensor?, sums: Tensor?) {
        self.weights = weights
        self.sums = sums
    }
}

/// A router's pass in few ops: each is made of those of ``RouterOp`` and ``GateOp``, which define it, unless a device does
/// better.
public protocol RouterPassOp {
    /// Scores of logits (T, E), a sigmoid or softmax of each row; the K highest of them with `bias` (E), or of the logits for
    /// a softmax; the weights by `rule`; and the order of the rows.
    func chooseExperts(_ logits: Tensor, choices: Int, isSigmoid: Bool, bias: Tensor?, rule: GateRule) throws
        -> ExpertChoice
    /// ``GateOp/sumOverGroups(_:groups:mask:into:)`` and ``GateOp/countChoices(_:groups:mask:into:)`` of the same groups.
    func sumAndCount(
        _ values: Tensor, ids: Tensor, groups: [Range<Int>], mask: Tensor?, sums: Tensor, counts: Tensor) throws
    /// `dlogits` (T, E) `(+)= ` the gradient of a softmax router: of weights (T, K) of the kept `ids`, and of the sums of
    /// scores (T, E) over the tokens of `groups`, which hold every token, that `mask` lets count.
    func softmaxGateBackward(
        _ gradients: GateGradients, logits: Tensor, scores: Tensor, ids: Tensor, weights: Tensor, rule: GateRule,
        groups: [Range<Int>], mask: Tensor?, into dlogits: Tensor, adds: Bool) throws
}

extension RouterPassOp where Self: Backend {
    public func chooseExperts(
        _ logits: Tensor, choices: Int, isSigmoid: Bool, bias: Tensor?, rule: GateRule
    ) throws -> ExpertChoice {
        try composedChoice(logits, choices: choices, isSigmoid: isSigmoid, bias: bias, rule: rule)
    }

    /// ``chooseExperts(_:choices:isSigmoid:bias:rule:)`` of one op after the other.
    public func composedChoice(
        _ logits: Tensor, choices: Int, isSigmoid: Bool, bias: Tensor?, rule: GateRule
    ) throws -> ExpertChoice {
        let scores = try empty(logits.shape, .f32)
        if isSigmoid { try sigmoid(logits, into: scores) } else { try softmax(logits, into: scores) }
        let ids = try empty(Shape(logits.shape[0], choices), .i32)
        try topK(isSigmoid ? scores : logits, bias: bias, ids: ids, values: nil)
        let permutation = try sortByExpert(ids, experts: logits.shape[1])
        let weights = try empty(ids.shape, .f32)
        try gateWeights(rule.isSoftmaxOfChosen ? logits : scores, ids: ids, rule: rule, into: weights)
        return ExpertChoice(scores: scores, ids: ids, weights: weights, permutation: permutation)
    }

    public func sumAndCount(
        _ values: Tensor, ids: Tensor, groups: [Range<Int>], mask: Tensor?, sums: Tensor, counts: Tensor
    ) throws {
        try sumOverGroups(values, groups: groups, mask: mask, into: sums)
        try countChoices(ids, groups: groups, mask: mask, into: counts)
    }

    public func softmaxGateBackward(
        _ gradients: GateGradients, logits: Tensor, scores: Tensor, ids: Tensor, weights: Tensor, rule: GateRule,
        groups: [Range<Int>], mask: Tensor?, into dlogits: Tensor, adds: Bool
    ) throws {
        let dscores = try zeros(scores.shape, .f32)
        if !adds { try fill(dlogits, with: 0) }
        if let dsums = gradients.sums { try sumOverGroupsBackward(dsums, groups: groups, mask: mask, into: dscores) }
        if let dweights = gradients.weights {
            try gateWeightsBackward(
                dweights, scores: rule.isSoftmaxOfChosen ? logits : scores, ids: ids, weights: weights, rule: rule,
                into: rule.isSoftmaxOfChosen ? dlogits : dscores)
        }
        try softmaxBackward(dscores, y: scores, into: dscores)
        try add(dlogits, dscores, into: dlogits)
    }
}

extension CPUBackend: RouterPassOp {}
