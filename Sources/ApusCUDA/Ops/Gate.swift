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
        let experts = values.shape[1]
        try overGroups(groups, into: sums) { partials, ranges, chunks in
            try launch(
                "sum_over_groups",
                LaunchShape(grid: (chunks, groups.count, ceilDivide(experts, 32)), block: (32, 32, 1)), partials,
                values, ranges, mask, experts)
        }
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
        let experts = counts.shape[1]
        try overGroups(groups, into: counts) { partials, ranges, chunks in
            try launch(
                "count_choices",
                LaunchShape(grid: (chunks, groups.count, 1), block: (256, 1, 1), sharedBytes: 4 * experts), partials,
                ids, ranges, mask, experts, ids.shape[1])
        }
    }

    /// Sums (G, E) over chunks of each group, each chunk's by `body`, then the chunks in order.
    private func overGroups(
        _ groups: [Range<Int>], into sums: Tensor,
        _ body: (_ partials: Tensor, _ ranges: Tensor, _ chunks: Int) throws -> Void
    ) throws {
        let (chunks, experts) = (CUDABackend.chunks(of: groups), sums.shape[1])
        let ranges = try ranges(groups)
        guard chunks > 1 else { return try body(sums, ranges, 1) }
        let partials = try empty(Shape(groups.count, chunks, experts), .f32, .workspace)
        try body(partials, ranges, chunks)
        try launch(
            "sum_chunks", LaunchShape(grid: (ceilDivide(experts, 128), groups.count, 1), block: (128, 1, 1)), sums,
            partials, chunks, experts)
    }

    /// (G, 2) `i32`: the first token of each group, and the one behind its last.
    func ranges(_ groups: [Range<Int>]) throws -> Tensor {
        try constant(groups.flatMap { [$0.lowerBound, $0.upperBound] })
    }

    /// Pieces of 2,048 tokens, as `Kernels/gate.cu` cuts them, that the longest group has; 1 even when it is empty.
    private static func chunks(of groups: [Range<Int>]) -> Int {
        max(1, ceilDivide(groups.map(\.count).max() ?? 0, 2048))
    }
}
