import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, G routing groups.

/// The differentiable half of one router pass: weights, probability sums and losses, and their adjoints down to the
/// input and the router's weight.
struct GatePass {
    let router: TopKRouter
    let input: Variable
    /// What the router made of the input, and what the adjoint of that reads.
    let rawLogits: Tensor
    let keptLogits: RouterLogits.Kept?
    /// What scores are made of, and its derivative by the raw logits: the same tensor and 1, unless the gate is annealed.
    let logits: Tensor
    let logitFactor: Float
    let scores: Tensor
    /// The weights, where they were formed with the decision.
    let chosenWeights: Tensor?
    let decision: RoutingDecision

    /// Records the gate as one node with the outputs weights, probability sums and logits, and the losses as roots.
    func record(layer: Int, _ context: MoEContext) throws -> Routing {
        let tape = context.forward.tape
        let backend = tape.backend
        let layout = context.forward.layout
        let ruleScores = router.gateRule.isSoftmaxOfChosen ? logits : scores
        let weights = try self.weights(of: ruleScores, backend)
        guard context.countsLoads || tape.isRecording else {
            return Routing(
                decision: decision, weights: .constant(weights), probabilitySums: nil, choiceCounts: nil)
        }
        let terms = RouterLossTerms(losses: router.losses, layout: layout, globalTokens: context.globalTokens)
        let groups = terms.balanceGroups
        let probabilities = try Self.probabilities(scores, router.configuration, backend)
        let sums = try backend.empty(Shape(groups.count, router.experts), .f32)
        let counts = try backend.empty(sums.shape, .f32)
        try backend.sumAndCount(
            probabilities, ids: decision.ids, groups: groups, mask: layout.tokenMask, sums: sums, counts: counts)
        let outputs = tape.record("router", inputs: [input], outputs: [weights, sums, rawLogits]) { flow in
            try backward(flow, weights: weights, groups: groups, mask: layout.tokenMask)
        }
        var values: [RouterLossKind: Tensor] = [:]
        if router.losses.scope == .layer {
            values[.balance] = try terms.addBalance(
                outputs[1], counts: counts, nodes: router.configuration.nodes, on: tape)
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

    private func weights(of ruleScores: Tensor, _ backend: any Backend) throws -> Tensor {
        if let chosenWeights { return chosenWeights }
        let weights = try backend.empty(decision.ids.shape, .f32)
        try backend.gateWeights(ruleScores, ids: decision.kept, rule: router.gateRule, into: weights)
        return weights
    }

    /// (T, E) that sum to 1 over experts: the scores, or, for sigmoids, their shares.
    static func probabilities(
        _ scores: Tensor, _ configuration: RouterConfiguration, _ backend: any Backend
    ) throws -> Tensor {
        guard configuration.scoring == .sigmoid else { return scores }
        let shares = try backend.empty(scores.shape, .f32)
        try backend.gateWeights(scores, ids: nil, rule: GatePass.shareRule, into: shares)
        return shares
    }

    /// A sigmoid router's scores as shares of their sum, with which the balance loss is formed.
    private static let shareRule = GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 1)

    private func backward(
        _ flow: borrowing GradientFlow, weights: Tensor, groups: [Range<Int>], mask: Tensor?
    ) throws {
        let backend = flow.backend
        let gradients = GateGradients(weights: flow.output(0), sums: flow.output(1))
        let direct = try flow.takeOutput(2).map { try backend.exclusive($0) }
        // Without annealing the gate's logits are the raw ones, and gradients of both are added in place.
        let isAnnealed = router.configuration.annealing != nil
        let present = isAnnealed ? nil : direct
        let dgate = try present ?? backend.empty(scores.shape, .f32)
        if router.configuration.scoring == .sigmoid {
            if present == nil { try backend.fill(dgate, with: 0) }
            try addSigmoidGradient(gradients, weights, groups, mask, into: dgate, backend)
        } else {
            try backend.softmaxGateBackward(
                gradients, logits: logits, scores: scores, ids: decision.kept, weights: weights, rule: router.gateRule,
                groups: groups, mask: mask, into: dgate, adds: present != nil)
        }
        if isAnnealed {
            try backend.scale(dgate, by: logitFactor, into: dgate)
            if let direct { try backend.add(dgate, direct, into: dgate) }
        }
        try router.logits.backward(dgate, keptLogits, of: input, flow)
    }

    /// `dlogits += ` the gradient of a sigmoid router.
    private func addSigmoidGradient(
        _ gradients: GateGradients, _ weights: Tensor, _ groups: [Range<Int>], _ mask: Tensor?, into dlogits: Tensor,
        _ backend: any Backend
    ) throws {
        let dscores = try backend.zeros(scores.shape, .f32)
        if let dsums = gradients.sums {
            let dshares = try backend.zeros(scores.shape, .f32, .workspace)
            try backend.sumOverGroupsBackward(dsums, groups: groups, mask: mask, into: dshares)
            let shares = try Self.probabilities(scores, router.configuration, backend)
            try backend.gateWeightsBackward(
                dshares, scores: scores, ids: nil, weights: shares, rule: GatePass.shareRule, into: dscores)
        }
        if let dweights = gradients.weights {
            let rule = router.gateRule
            try backend.gateWeightsBackward(
                dweights, scores: rule.isSoftmaxOfChosen ? logits : scores, ids: decision.kept, weights: weights,
                rule: rule, into: rule.isSoftmaxOfChosen ? dlogits : dscores)
        }
        try backend.sigmoidBackward(dscores, y: scores, into: dscores)
        try backend.add(dlogits, dscores, into: dlogits)
    }
}
