public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, H heads, D width.

extension CUDABackend: NormOp {
    public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor, rstd: Tensor?) throws {
        let rows = NormRows(x)
        precondition(y.shape == x.shape && weight.count == rows.width && weight.dtype == x.dtype)
        try launch(
            "rmsnorm_\(x.suffix)", rows.shape, y, y.rowStride, rows.width, rstd, x, x.rowStride, rows.width, weight,
            rows.tokens, rows.heads, rows.width, epsilon)
    }

    public func addRMSNorm(
        _ x: Tensor, residual: Tensor, weight: Tensor, epsilon: Float, sum: Tensor, into y: Tensor, rstd: Tensor?
    ) throws {
        let (tokens, width) = (x.shape[0], x.shape[-1])
        precondition(x.shape.rank == 2 && residual.shape == x.shape && sum.shape == x.shape && y.shape == x.shape)
        try launch(
            "add_rmsnorm_\(x.suffix)", .rows(tokens, width: width), y, y.rowStride, sum, sum.rowStride, rstd, x,
            x.rowStride, residual, residual.rowStride, weight, tokens, width, epsilon)
    }

    public func rmsNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool, weightGradient: Tensor?
    ) throws {
        let rows = NormRows(x)
        let shape = rows.backwardShape(sums: 1)
        let partials = try weightGradient.map { _ in try empty(Shape(shape.grid.x, rows.width), .f32, .workspace) }
        try launch(
            "rmsnorm_backward_\(x.suffix)", shape, dx, dx.rowStride, rows.width, partials, dy, dy.rowStride,
            rows.width, x, x.rowStride, rows.width, weight, rstd, rows.tokens, rows.heads, rows.width, adds)
        if let partials, let weightGradient { try addPartials(partials, shape.grid.x, into: weightGradient) }
    }

    public func layerNorm(
        _ x: Tensor, weight: Tensor, bias: Tensor?, epsilon: Float, into y: Tensor, mean: Tensor?, rstd: Tensor?
    ) throws {
        let rows = NormRows(x)
        precondition(y.shape == x.shape && weight.count == rows.width && weight.dtype == x.dtype)
        try launch(
            "layernorm_\(x.suffix)", rows.shape, y, y.rowStride, rows.width, mean, rstd, x, x.rowStride, rows.width,
            weight, bias, rows.tokens, rows.heads, rows.width, epsilon)
    }

    public func layerNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool,
        weightGradient: Tensor?, biasGradient: Tensor?
    ) throws {
        let rows = NormRows(x)
        let shape = rows.backwardShape(sums: 2)
        let blocks = shape.grid.x
        let hasGradient = weightGradient != nil || biasGradient != nil
        let partials = hasGradient ? try empty(Shape(2, blocks, rows.width), .f32, .workspace) : nil
        try launch(
            "layernorm_backward_\(x.suffix)", shape, dx, dx.rowStride, rows.width, partials, dy, dy.rowStride,
            rows.width, x, x.rowStride, rows.width, weight, mean, rstd, rows.tokens, rows.heads, rows.width, adds)
        guard let partials else { return }
        if let weightGradient { try addPartials(partials[0..<1], blocks, into: weightGradient) }
        if let biasGradient { try addPartials(partials[1..<2], blocks, into: biasGradient) }
    }
}

/// (T, D) or (T, H, D) as the kernels take them: a row for each head of each token.
private struct NormRows {
    let tokens: Int
    let heads: Int
    let width: Int

    init(_ x: Tensor) {
        tokens = x.shape[0]
        heads = x.shape.rank == 3 ? x.shape[1] : 1
        width = x.shape[-1]
    }

    var shape: LaunchShape { .rows(tokens * heads, width: width) }
    func backwardShape(sums: Int) -> LaunchShape { .rowRuns(tokens * heads, width: width, sums: sums) }
}
