import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

extension Routing {
    /// What a router of a program's own returns: every choice is computed, and its load is reported as other routers'
    /// are.
    ///
    /// 1. `choose` makes the ids. It is not called when the context replays a decision, as a checkpointed block's second
    ///    run does.
    /// 2. `weigh` makes the combine weights of the decision's ids. What it records on the tape is differentiated; a
    ///    constant is not. Losses are roots that it registers.
    ///
    /// There are no probability sums, so a pooled balance loss leaves the model's layers out.
    ///
    /// - Parameters:
    ///   - experts: E.
    ///   - layer: Global layer index.
    ///   - choose: (T, K) `i32` ids in `0 ..< E`, those of a token different.
    ///   - weigh: (T, K) `f32` weights.
    /// - Throws: what the closures throw; ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public static func make(
        experts: Int, layer: Int, _ context: MoEContext, choose: () throws -> Tensor,
        weigh: (RoutingDecision) throws -> Variable
    ) throws -> Routing {
        let backend = context.forward.tape.backend
        let layout = context.forward.layout
        func decide() throws -> RoutingDecision {
            let ids = try choose()
            return RoutingDecision(
                ids: ids, kept: ids, experts: experts, capacities: [], isPadded: false,
                permutation: try backend.sortByExpert(ids, experts: experts))
        }
        let decision = try context.trace?.decision(layer: context.key(layer), decide) ?? decide()
        let weights = try weigh(decision)
        precondition(
            weights.shape == decision.ids.shape && weights.dtype == .f32,
            "weights of \(weights.shape) \(weights.dtype) for choices of \(decision.ids.shape)")
        let counts = try backend.empty(Shape(layout.routingGroups.count, experts), .f32)
        try backend.countChoices(decision.ids, groups: layout.routingGroups, mask: layout.tokenMask, into: counts)
        context.report?.add(
            RoutingReport.Layer(layer: layer, choices: counts, rows: decision.permutation.counts, losses: [:]))
        return Routing(decision: decision, weights: weights, probabilitySums: nil, choiceCounts: counts)
    }
}
