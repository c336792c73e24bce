public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

extension CUDABackend: RouterPassOp {
    public func chooseExperts(
        _ logits: Tensor, choices: Int, isSigmoid: Bool, bias: Tensor?, rule: GateRule
    ) throws -> ExpertChoice {
        let (tokens, experts) = (logits.shape[0], logits.shape[1])
        // The kernel for the fewest experts that will do holds the fewest scores; a lane holds one choice.
        guard choices <= min(experts, 32), let most = [32, 64, 128, 256, 1024].first(where: { $0 >= experts }) else {
            return try composedChoice(logits, choices: choices, isSigmoid: isSigmoid, bias: bias, rule: rule)
        }
        precondition(logits.isContiguous)
        // Whole rounds of the 32 warps of a block, some 128 blocks; a single one where a launch costs more than it does.
        let chunk = max(ceilDivide(ceilDivide(tokens, 128), 32) * 32, 64)
        let order = try ExpertOrder(
            slots: tokens * choices, experts: experts, chunkSlots: chunk * choices, on: self)
        let (scores, ids) = (try empty(logits.shape, .f32), try empty(Shape(tokens, choices), .i32))
        let weights = try empty(ids.shape, .f32)
        let permutation = order.permutation
        let kernels = order.kernels(first: "choose_experts_\(most)")
        try launch(
            kernels[0], order.launchShape, scores, ids, weights, permutation.slotToRow, permutation.rowToSlot,
            permutation.rowToToken, permutation.counts, permutation.offsets, order.chunkCounts, logits, bias, tokens,
            experts, choices, chunk, isSigmoid, rule.isSoftmaxOfChosen, rule.renormalizes, rule.scale)
        if kernels.count > 1 {
            try launch(
                kernels[1], order.launchShape, permutation.slotToRow, permutation.rowToSlot, permutation.rowToToken,
                permutation.counts, permutation.offsets, order.chunkCounts, ids, tokens * choices, choices, experts,
                order.chunkSlots)
        }
        return ExpertChoice(scores: scores, ids: ids, weights: weights, permutation: permutation)
    }

    public func sumAndCount(
        _ values: Tensor, ids: Tensor, groups: [Range<Int>], mask: Tensor?, sums: Tensor, counts: Tensor
    ) throws {
        try overGroups(values, ids: ids, groups, mask, sums: sums, counts: counts)
    }

    public func softmaxGateBackward(
        _ gradients: GateGradients, logits: Tensor, scores: Tensor, ids: Tensor, weights: Tensor, rule: GateRule,
        groups: [Range<Int>], mask: Tensor?, into dlogits: Tensor, adds: Bool
    ) throws {
        let (experts, longest) = (scores.shape[1], groups.map(\.count).max() ?? 0)
        try launch(
            "softmax_gate_backward",
            LaunchShape(
                grid: (ceilDivide(longest, 32), groups.count, 1), block: (256, 1, 1), sharedBytes: 32 * experts),
            dlogits, gradients.weights, gradients.sums, scores, logits, ids, weights, try ranges(groups), mask, experts,
            ids.shape[1], rule.isSoftmaxOfChosen, rule.renormalizes, rule.scale, adds)
    }
}
