import ApusKernels
import ApusTensor

// Routing.

extension FaultyBackend {
    func softmax(_ x: Tensor, into y: Tensor) throws {
        try inner.softmax(x, into: y)
        done(.softmax, y)
    }

    func softmaxBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws {
        try inner.softmaxBackward(dy, y: y, into: dx)
        done(.softmaxBackward, dx)
    }

    func sigmoid(_ x: Tensor, into y: Tensor) throws {
        try inner.sigmoid(x, into: y)
        done(.sigmoid, y)
    }

    func sigmoidBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws {
        try inner.sigmoidBackward(dy, y: y, into: dx)
        done(.sigmoidBackward, dx)
    }

    func logSumExp(_ x: Tensor, into result: Tensor) throws {
        try inner.logSumExp(x, into: result)
        done(.logSumExp, result)
    }

    func topK(_ scores: Tensor, bias: Tensor?, ids: Tensor, values: Tensor?) throws {
        try inner.topK(scores, bias: bias, ids: ids, values: values)
        done(.topK, ids, values)
    }

    func sortByExpert(_ ids: Tensor, experts: Int) throws -> RoutingPermutation {
        let result = try inner.sortByExpert(ids, experts: experts)
        done(.sortByExpert, result.slotToRow, result.rowToSlot, result.rowToToken, result.counts, result.offsets)
        return result
    }

    func chooseExperts(
        _ logits: Tensor, choices: Int, isSigmoid: Bool, bias: Tensor?, rule: GateRule
    ) throws -> ExpertChoice {
        let result = try inner.chooseExperts(logits, choices: choices, isSigmoid: isSigmoid, bias: bias, rule: rule)
        let order = result.permutation
        done(
            .chooseExperts, result.scores, result.ids, result.weights, order.slotToRow, order.rowToSlot,
            order.rowToToken, order.counts, order.offsets)
        return result
    }

    func sumAndCount(
        _ values: Tensor, ids: Tensor, groups: [Range<Int>], mask: Tensor?, sums: Tensor, counts: Tensor
    ) throws {
        try inner.sumAndCount(values, ids: ids, groups: groups, mask: mask, sums: sums, counts: counts)
        done(.sumAndCount, sums, counts)
    }

    func softmaxGateBackward(
        _ gradients: GateGradients, logits: Tensor, scores: Tensor, ids: Tensor, weights: Tensor, rule: GateRule,
        groups: [Range<Int>], mask: Tensor?, into dlogits: Tensor, adds: Bool
    ) throws {
        try inner.softmaxGateBackward(
            gradients, logits: logits, scores: scores, ids: ids, weights: weights, rule: rule, groups: groups,
            mask: mask,
            into: dlogits, adds: adds)
        done(.softmaxGateBackward, dlogits)
    }

    func gateWeights(_ scores: Tensor, ids: Tensor?, rule: GateRule, into weights: Tensor) throws {
        try inner.gateWeights(scores, ids: ids, rule: rule, into: weights)
        done(.gateWeights, weights)
    }

    func gateWeightsBackward(
        _ dweights: Tensor, scores: Tensor, ids: Tensor?, weights: Tensor, rule: GateRule, into dscores: Tensor
    ) throws {
        try inner.gateWeightsBackward(dweights, scores: scores, ids: ids, weights: weights, rule: rule, into: dscores)
        done(.gateWeightsBackward, dscores)
    }

    func sumOverGroups(_ values: Tensor, groups: [Range<Int>], mask: Tensor?, into sums: Tensor) throws {
        try inner.sumOverGroups(values, groups: groups, mask: mask, into: sums)
        done(.sumOverGroups, sums)
    }

    func sumOverGroupsBackward(_ dsums: Tensor, groups: [Range<Int>], mask: Tensor?, into dvalues: Tensor) throws {
        try inner.sumOverGroupsBackward(dsums, groups: groups, mask: mask, into: dvalues)
        done(.sumOverGroupsBackward, dvalues)
    }

    func countChoices(_ ids: Tensor, groups: [Range<Int>], mask: Tensor?, into counts: Tensor) throws {
        try inner.countChoices(ids, groups: groups, mask: mask, into: counts)
        done(.countChoices, counts)
    }

    func balanceLoss(
        _ sums: Tensor, counts: Tensor, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        try inner.balanceLoss(
            sums, counts: counts, scale: scale, into: value, coefficient: coefficient, gradient: gradient)
        done(.balanceLoss, value, gradient)
    }

    func logitLoss(
        _ logits: Tensor, mask: Tensor?, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        try inner.logitLoss(logits, mask: mask, scale: scale, into: value, coefficient: coefficient, gradient: gradient)
        done(.logitLoss, value, gradient)
    }

    func importanceLoss(
        _ weights: Tensor, ids: Tensor, experts: Int, groups: [Range<Int>], mask: Tensor?, scale: Float,
        into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        try inner.importanceLoss(
            weights, ids: ids, experts: experts, groups: groups, mask: mask, scale: scale, into: value,
            coefficient: coefficient, gradient: gradient)
        done(.importanceLoss, value, gradient)
    }

    func limitToCapacity(
        _ ids: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int], priority: CapacityPriority,
        into kept: Tensor
    ) throws {
        try inner.limitToCapacity(
            ids, experts: experts, groups: groups, capacities: capacities, priority: priority, into: kept)
        done(.limitToCapacity, kept)
    }

    func dropLightChoices(_ ids: Tensor, weights: Tensor, below threshold: Float, into kept: Tensor) throws {
        try inner.dropLightChoices(ids, weights: weights, below: threshold, into: kept)
        done(.dropLightChoices, kept)
    }

    func padToCapacity(
        _ kept: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int]
    ) throws -> RoutingPermutation {
        let result = try inner.padToCapacity(kept, experts: experts, groups: groups, capacities: capacities)
        done(.padToCapacity, result.slotToRow, result.rowToSlot, result.rowToToken, result.counts, result.offsets)
        return result
    }
}
