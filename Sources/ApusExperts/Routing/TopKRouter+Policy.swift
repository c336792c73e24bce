import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, C capacity, G routing groups.

extension TopKRouter {
    /// What the policy limits in one pass.
    struct CapacityLimit {
        let factor: Float
        let minimum: Int
        let order: TokenPolicy.DropOrder
    }

    /// The limit that holds in a pass; `nil` where every choice is computed.
    ///
    /// Capacity is a budget of training, and of evaluation if the policy says so. In generation a token's experts must not
    /// depend on who else is in the batch, nor on whether earlier tokens are in this pass or in the cache (decision 009).
    func capacityLimit(_ context: MoEContext) -> CapacityLimit? {
        guard case .capacity(let factor, let minimum, let order, let evaluation) = policy else { return nil }
        if context.forward.trainingStep != nil {
            return CapacityLimit(factor: factor, minimum: minimum, order: order)
        }
        guard context.isEvaluation, let evaluation else { return nil }
        return CapacityLimit(factor: evaluation, minimum: minimum, order: order == .random ? .position : order)
    }

    /// The decision that keeps of `ids` (T, K) what the policy lets stay.
    func applyPolicy(
        _ ids: Tensor, scores: Tensor, layer: Int, _ context: MoEContext
    ) throws -> RoutingDecision {
        let backend = context.forward.tape.backend
        let groups = context.forward.layout.routingGroups
        guard let limit = capacityLimit(context) else {
            return RoutingDecision(
                ids: ids, kept: ids, experts: experts, capacities: [], isPadded: false,
                permutation: try backend.sortByExpert(ids, experts: experts))
        }
        let capacities = try capacities(limit, ids, groups, backend)
        let kept = try backend.empty(ids.shape, .i32)
        try backend.limitToCapacity(
            ids, experts: experts, groups: groups, capacities: capacities,
            priority: priority(limit.order, ids, scores: scores, layer: layer, context), into: kept)
        let permutation =
            isPadded
            ? try backend.padToCapacity(kept, experts: experts, groups: groups, capacities: capacities)
            : try backend.sortByExpert(kept, experts: experts)
        return RoutingDecision(
            ids: ids, kept: kept, experts: experts, capacities: capacities, isPadded: isPadded,
            permutation: permutation,
            // The batches of an evaluation end where the text does, on each rank elsewhere.
            capacitiesVary: limit.factor <= 0 || context.forward.trainingStep == nil)
    }

    /// C of each group.
    private func capacities(
        _ limit: CapacityLimit, _ ids: Tensor, _ groups: [Range<Int>], _ backend: any Backend
    ) throws -> [Int] {
        let choices = ids.shape[1]
        func bound(_ group: Range<Int>, _ factor: Float) -> Int {
            TokenPolicy.capacity(
                tokens: group.count, experts: experts, choices: choices, factor: factor, minimum: limit.minimum)
        }
        guard limit.factor <= 0 else { return groups.map { bound($0, limit.factor) } }
        let counts = try backend.empty(Shape(groups.count, experts), .f32, .workspace)
        try backend.countChoices(ids, groups: groups, mask: nil, into: counts)
        let loads = try backend.floats(counts)
        return groups.enumerated().map { index, group in
            let most = Int(loads[index * experts..<(index + 1) * experts].max() ?? 0)
            return limit.factor == 0 ? most : min(most, bound(group, -limit.factor))
        }
    }

    private func priority(
        _ order: TokenPolicy.DropOrder, _ ids: Tensor, scores: Tensor, layer: Int, _ context: MoEContext
    ) throws -> CapacityPriority {
        switch order {
        case .position: return .position
        case .probability: return .score(scores)
        case .importance: return .slots(try importance(scores, choices: ids.shape[1], context.forward.tape.backend))
        case .random:
            let stream = RandomStream(
                seed: context.forward.seed, purpose: .tokenSelection, layer: context.key(layer),
                step: context.forward.trainingStep ?? 0)
            let first = UInt64(context.forward.layout.firstGlobalToken * ids.shape[1])
            return .random(stream, firstGlobalSlot: first)
        }
    }

    /// (T, K): a token's highest probability, divided by 2048 for each of its choices before.
    ///
    /// The highest of at most 1024 probabilities is above 1 / 2048, so that any first choice comes before any second; and a
    /// power of two changes no digit.
    private func importance(_ scores: Tensor, choices: Int, _ backend: any Backend) throws -> Tensor {
        precondition(choices <= TokenPolicy.DropOrder.mostImportanceChoices, "\(choices) choices by importance")
        let single = Shape(scores.shape[0], 1)
        let (best, id) = (try backend.empty(single, .f32, .workspace), try backend.empty(single, .i32, .workspace))
        try backend.topK(GatePass.probabilities(scores, configuration, backend), bias: nil, ids: id, values: best)
        guard choices > 1 else { return best }
        let values = try backend.empty(Shape(scores.shape[0], choices), .f32, .workspace)
        for choice in 0..<choices {
            if choice > 0 { try backend.scale(best, by: 0x1p-11, into: best) }
            try backend.copy(best, into: values.columns(choice..<choice + 1))
        }
        return values
    }
}

extension TokenPolicy {
    /// `C = max(ceil(factor * K * T / E), minimum)`, and never more than the T tokens there are.
    ///
    /// Computed in `f32`, which rounds 1.1 * 100 / 10 to the 11 that is meant; with the factor widened to `f64` it
    /// would be above 11, and C 12.
    static func capacity(tokens: Int, experts: Int, choices: Int, factor: Float, minimum: Int) -> Int {
        let wanted = (Float(Double(tokens) / Double(experts)) * (factor * Float(choices))).rounded(.up)
        // Compared before it is an integer: a factor may ask for more than any integer.
        return wanted >= Float(tokens) ? tokens : min(max(Int(wanted), minimum), tokens)
    }
}
