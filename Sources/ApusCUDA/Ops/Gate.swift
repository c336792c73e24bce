public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

extension CUDABackend: GateOp {
    public func gateWeights(_ scores: Tensor, ids: Tensor?, rule: GateRule, into weights: Tensor) throws {
        let (tokens, experts, choices) = (scores.shape[0], scores.shape[1], weights.shape[1])
        try launch(
            "gate_weights", .blocks(ceilDivide(tokens, 128), threads: 128), weights, scores, ids, tokens, experts,
            choices, rule.isSoftmaxOfChosen, rule.renormalizes, rule.scale)
    }

    public func gateWeightsBackward(
        _ dweights: Tensor, scores: Tensor, ids: Tensor?, weights: Tensor, rule: GateRule, into dscores: Tensor
    ) throws {
        let (tokens, experts, choices) = (scores.shape[0], scores.shape[1], weights.shape[1])
        try launch(
            "gate_weights_backward", .blocks(ceilDivide(tokens, 128), threads: 128), dscores, dweights, scores, ids,
            weights, tokens, experts, choices, rule.isSoftmaxOfChosen, rule.renormalizes, rule.scale)
    }

    public func sumOverGroups(_ values: Tensor, groups: [Range<Int>], mask: Tensor?, into sums: Tensor) throws {
        try overGroups(values, ids: nil, groups, mask, sums: sums, counts: nil)
    }

    public func sumOverGroupsBackward(
        _ dsums: Tensor, groups: [Range<Int>], mask: Tensor?, into dvalues: Tensor
    ) throws {
        try launch(
            "sum_over_groups_backward",
            LaunchShape(grid: (CUDABackend.chunks(of: groups), groups.count, 1), block: (256, 1, 1)), dvalues, dsums,
            try ranges(groups), mask, dvalues.shape[1])
    }

    public func countChoices(_ ids: Tensor, groups: [Range<Int>], mask: Tensor?, into counts: Tensor) throws {
        try overGroups(nil, ids: ids, groups, mask, sums: nil, counts: counts)
    }

    /// Sums of values and counts of choices (G, E), or one of them, over chunks of each group and then over the chunks in
    /// order.
    func overGroups(
        _ values: Tensor?, ids: Tensor?, _ groups: [Range<Int>], _ mask: Tensor?, sums: Tensor?, counts: Tensor?
    ) throws {
        let (chunks, experts) = (CUDABackend.chunks(of: groups), (sums ?? counts)?.shape[1] ?? 0)
        let shape = LaunchShape(grid: (chunks, groups.count, ceilDivide(experts, 32)), block: (32, 32, 1))
        let ranges = try ranges(groups)
        let partials = { (result: Tensor?) in
            chunks == 1
                ? result
                : try result.map { _ in try self.empty(Shape(groups.count, chunks, experts), .f32, .workspace) }
        }
        let (sumPartials, countPartials) = (try partials(sums), try partials(counts))
        try launch(
            "sum_over_groups", shape, sumPartials, countPartials, values, ids, ranges, mask, experts,
            ids?.shape[1] ?? 1)
        guard chunks > 1 else { return }
        try launch(
            "sum_chunks", LaunchShape(grid: (ceilDivide(experts, 128), groups.count, 2), block: (128, 1, 1)), sums,
            counts, sumPartials, countPartials, chunks, experts)
    }

    /// (G, 2) `i32`: the first token of each group, and the one behind its last.
    func ranges(_ groups: [Range<Int>]) throws -> Tensor {
        try constant(groups.flatMap { [$0.lowerBound, $0.upperBound] })
    }

    /// Pieces of 2,048 tokens, as `Kernels/gate.cu` cuts them, that the longest group has; 1 even when it is empty.
    static func chunks(of groups: [Range<Int>]) -> Int {
        max(1, ceilDivide(groups.map(\.count).max() ?? 0, 2048))
    }
}
