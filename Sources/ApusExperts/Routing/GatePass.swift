import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, G routing groups.

/// The differentiable half of one router pass: weights, probability sums and losses, and their adjoints down to the
/// input and the router's weight.
struct GatePass {
    let router: TopKRouter
    let input: Variable
    let logits: Tensor
    let scores: Tensor
    let decision: RoutingDecision

    /// Records the gate as one node with the outputs weights, probability sums and logits, and the losses as roots.
    func record(layer: Int, _ context: MoEContext) throws -> Routing {
        let tape = context.forward.tape
        let backend = tape.backend
        let layout = context.forward.layout
        let weights = try backend.empty(decision.ids.shape, .f32)
        let ruleScores = router.gateRule.isSoftmaxOfChosen ? logits : scores
        try backend.gateWeights(ruleScores, ids: decision.kept, rule: router.gateRule, into: weights)
        let terms = RouterLossTerms(losses: router.losses, layout: layout, globalTokens: context.globalTokens)
        let groups = terms.balanceGroups
        let probabilities = try self.probabilities(backend)
        let sums = try backend.empty(Shape(groups.count, router.experts), .f32)
        try backend.sumOverGroups(probabilities, groups: groups, mask: layout.tokenMask, into: sums)
        let counts = try backend.empty(sums.shape, .f32)
        try backend.countChoices(decision.ids, groups: groups, mask: layout.tokenMask, into: counts)
        let outputs = tape.record("router", inputs: [input], outputs: [weights, sums, logits]) { flow in
            try backward(flow, weights: weights, ruleScores: ruleScores, groups: groups, mask: layout.tokenMask)
        }
        var values: [RouterLossKind: Tensor] = [:]
        if router.losses.scope == .layer {
            values[.balance] = try terms.addBalance(outputs[1], counts: counts, on: tape)
        }
        if router.losses.z > 0 { values[.z] = try terms.addLogits(outputs[2], on: tape) }
        if router.losses.importance > 0 {
            values[.importance] = try terms.addImportance(
                outputs[0], ids: decision.kept, experts: router.experts, on: tape)
        }
        context.report?.add(
            RoutingReport.Layer(layer: layer, choices: counts, rows: decision.permutation.counts, losses: values))
        return Routing(
            decision: decision, weights: outputs[0], probabilitySums: outputs[1], choiceCounts: counts)
    }

    /// (T, E) that sum to 1 over experts: the scores, or, for sigmoids, their shares.
    private func probabilities(_ backend: any Backend) throws -> Tensor {
        guard router.configuration.scoring == .sigmoid else { return scores }
        let shares = try backend.empty(scores.shape, .f32)
        try backend.gateWeights(scores, ids: nil, rule: GatePass.shareRule, into: shares)
        return shares
    }

    /// A sigmoid router's scores as shares of their sum, with which the balance loss is formed.
    private static let shareRule = GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 1)

    private func backward(
        _ flow: borrowing GradientFlow, weights: Tensor, ruleScores: Tensor, groups: [Range<Int>], mask: Tensor?
    ) throws {
        let backend = flow.backend
        let rule = router.gateRule
        let dscores = try backend.zeros(scores.shape, .f32)
        let dlogits: Tensor
        if let direct = flow.takeOutput(2) {
            dlogits = try backend.exclusive(direct)
        } else {
            dlogits = try backend.zeros(scores.shape, .f32)
        }
        if let dsums = flow.output(1) { try addProbabilityGradient(dsums, groups, mask, into: dscores, backend) }
        if let dweights = flow.output(0) {
            try backend.gateWeightsBackward(
                dweights, scores: ruleScores, ids: decision.kept, weights: weights, rule: rule,
                into: rule.isSoftmaxOfChosen ? dlogits : dscores)
        }
        switch router.configuration.scoring {
        case .sigmoid: try backend.sigmoidBackward(dscores, y: scores, into: dscores)
        case .softmaxThenTopK, .topKThenSoftmax: try backend.softmaxBackward(dscores, y: scores, into: dscores)
        }
        try backend.add(dlogits, dscores, into: dlogits)
        if let gradient = router.weight.gradient {
            try backend.matMul(dlogits.transpose, input.tensor.matrix, into: gradient, adds: true)
        }
        try flow.accumulate(into: input) { dx, adds in
            try router.weight.withWeights(on: backend.stream) {
                try backend.matMul(dlogits.matrix, $0.matrix, into: dx, adds: adds)
            }
        }
    }

    private func addProbabilityGradient(
        _ dsums: Tensor, _ groups: [Range<Int>], _ mask: Tensor?, into dscores: Tensor, _ backend: any Backend
    ) throws {
        guard router.configuration.scoring == .sigmoid else {
            return try backend.sumOverGroupsBackward(dsums, groups: groups, mask: mask, into: dscores)
        }
        let dshares = try backend.zeros(scores.shape, .f32, .workspace)
        try backend.sumOverGroupsBackward(dsums, groups: groups, mask: mask, into: dshares)
        let shares = try probabilities(backend)
        try backend.gateWeightsBackward(
            dshares, scores: scores, ids: nil, weights: shares, rule: GatePass.shareRule, into: dscores)
    }
}
