public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

extension CUDABackend: RouterLossOp {
    public func balanceLoss(
        _ sums: Tensor, counts: Tensor, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        try launch(
            "balance_loss", LaunchShape(grid: (1, 1, 1), block: (32, 32, 1)), value, gradient, sums, counts,
            sums.shape[0], sums.shape[1], scale, coefficient)
    }

    public func logitLoss(
        _ logits: Tensor, mask: Tensor?, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        let (tokens, experts) = (logits.shape[0], logits.shape[1])
        precondition(logits.isContiguous)
        let blockTokens = max(8, ceilDivide(tokens, 512))
        let blocks = ceilDivide(tokens, blockTokens)
        // A partial sum is a double: two words.
        let partials = try empty(Shape(max(blocks, 1), 2), .f32, .workspace)
        try launch(
            "logit_loss", .blocks(blocks), partials, gradient, logits, mask, tokens, experts, blockTokens, scale,
            coefficient)
        try finishSum(partials, blocks, factor: scale, into: value)
    }

    public func importanceLoss(
        _ weights: Tensor, ids: Tensor, experts: Int, groups: [Range<Int>], mask: Tensor?, scale: Float,
        into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        let terms = try empty(Shape(groups.count), .f32, .workspace)
        try launch(
            "importance_loss", .blocks(groups.count, sharedBytes: 4 * experts), terms, gradient, weights, ids,
            try ranges(groups), mask, experts, ids.shape[1], scale, coefficient)
        try sum(terms, factor: 1, into: value)
    }
}
