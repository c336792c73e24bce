public import ApusTensor
import CApusKernels

/// RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) over rows.
///
/// `x` is (T, D), or (T, H, D) to normalise each of H heads; weight and bias are (D) of the same type. Statistics are
/// `f32`, one for each row.
public protocol NormOp {
    /// `y = x * rstd * weight`; `rstd` (T * H) is kept for the backward when given.
    func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor, rstd: Tensor?) throws
    /// `sum = x + residual`, `y = rmsNorm(sum)` in one pass; `sum` may be `x` or `residual`.
    func addRMSNorm(
        _ x: Tensor, residual: Tensor, weight: Tensor, epsilon: Float, sum: Tensor, into y: Tensor, rstd: Tensor?)
        throws
    /// `dx (+)= ` the gradient, `weightGradient += ` its part. `dx` may be `dy`.
    func rmsNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool, weightGradient: Tensor?)
        throws
    /// `y = (x - mean) * rstd * weight + bias`.
    func layerNorm(
        _ x: Tensor, weight: Tensor, bias: Tensor?, epsilon: Float, into y: Tensor, mean: Tensor?, rstd: Tensor?) throws
    /// `dx (+)= ` the gradient, `weightGradient` and `biasGradient += ` theirs.
    func layerNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool,
        weightGradient: Tensor?, biasGradient: Tensor?) throws
}

/// The strides and extents of (T, D) or (T, H, D) as the norm kernels take them.
private struct Rows {
    let tokens: Int
    let heads: Int
    let width: Int

    init(_ x: Tensor) {
        tokens = x.shape[0]
        heads = x.shape.rank == 3 ? x.shape[1] : 1
        width = x.shape[-1]
    }

    /// Tokens whose parameter gradients are summed together before blocks are added in order: fixes the order of the
    /// sum whatever the number of threads.
    var tokensPerBlock: Int { max(1, 512 / heads) }
    var blockCount: Int { (tokens + tokensPerBlock - 1) / tokensPerBlock }
    func block(_ index: Int) -> Range<Int> { index * tokensPerBlock..<min(tokens, (index + 1) * tokensPerBlock) }
}

extension CPUBackend: NormOp {
    public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor, rstd: Tensor?) throws {
        let rows = Rows(x)
        precondition(y.shape == x.shape && weight.count == rows.width && weight.dtype == x.dtype)
        try x.waitUntilReady()
        try weight.waitUntilReady()
        overRows(rows.tokens, width: rows.heads * rows.width) { range in
            let (from, to) = (x[range], y[range])
            let statistics = rstd.map { $0.pointer(to: Float.self) + range.lowerBound * rows.heads }
            if x.dtype == .f32 {
                apus_rmsnorm_forward_f32(
                    to.pointer(), to.rowStride, rows.width, statistics, from.pointer(), from.rowStride, rows.width,
                    weight.pointer(), range.count, rows.heads, rows.width, epsilon)
            } else {
                apus_rmsnorm_forward_bf16(
                    to.pointer(), to.rowStride, rows.width, statistics, from.pointer(), from.rowStride, rows.width,
                    weight.pointer(), range.count, rows.heads, rows.width, epsilon)
            }
        }
    }

    public func addRMSNorm(
        _ x: Tensor, residual: Tensor, weight: Tensor, epsilon: Float, sum: Tensor, into y: Tensor, rstd: Tensor?
    ) throws {
        let width = x.shape[-1]
        precondition(x.shape.rank == 2 && residual.shape == x.shape && sum.shape == x.shape && y.shape == x.shape)
        try x.waitUntilReady()
        try residual.waitUntilReady()
        try weight.waitUntilReady()
        overRows(x.shape[0], width: width) { range in
            let (a, b, s, to) = (x[range], residual[range], sum[range], y[range])
            let statistics = rstd.map { $0.pointer(to: Float.self) + range.lowerBound }
            if x.dtype == .f32 {
                apus_add_rmsnorm_forward_f32(
                    to.pointer(), to.rowStride, s.pointer(), s.rowStride, statistics, a.pointer(), a.rowStride,
                    b.pointer(), b.rowStride, weight.pointer(), range.count, width, epsilon)
            } else {
                apus_add_rmsnorm_forward_bf16(
                    to.pointer(), to.rowStride, s.pointer(), s.rowStride, statistics, a.pointer(), a.rowStride,
                    b.pointer(), b.rowStride, weight.pointer(), range.count, width, epsilon)
            }
        }
    }

    public func rmsNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool, weightGradient: Tensor?
    ) throws {
        let rows = Rows(x)
        try dy.waitUntilReady()
        try x.waitUntilReady()
        try weight.waitUntilReady()
        try rstd.waitUntilReady()
        if adds { try dx.waitUntilReady() }
        try overGradientBlocks(rows, [weightGradient]) { range, partials in
            let (d, from, to) = (dy[range], x[range], dx[range])
            let statistics = rstd.pointer(to: Float.self) + range.lowerBound * rows.heads
            if x.dtype == .f32 {
                apus_rmsnorm_backward_f32(
                    to.pointer(), to.rowStride, rows.width, partials[0], d.pointer(), d.rowStride, rows.width,
                    from.pointer(), from.rowStride, rows.width, weight.pointer(), statistics,
                    range.count, rows.heads, rows.width, adds)
            } else {
                apus_rmsnorm_backward_bf16(
                    to.pointer(), to.rowStride, rows.width, partials[0], d.pointer(), d.rowStride, rows.width,
                    from.pointer(), from.rowStride, rows.width, weight.pointer(), statistics,
                    range.count, rows.heads, rows.width, adds)
            }
        }
    }

    public func layerNorm(
        _ x: Tensor, weight: Tensor, bias: Tensor?, epsilon: Float, into y: Tensor, mean: Tensor?, rstd: Tensor?
    ) throws {
        let rows = Rows(x)
        precondition(y.shape == x.shape && weight.count == rows.width && weight.dtype == x.dtype)
        try x.waitUntilReady()
        try weight.waitUntilReady()
        try bias?.waitUntilReady()
        overRows(rows.tokens, width: rows.heads * rows.width) { range in
            let (from, to) = (x[range], y[range])
            let means = mean.map { $0.pointer(to: Float.self) + range.lowerBound * rows.heads }
            let deviations = rstd.map { $0.pointer(to: Float.self) + range.lowerBound * rows.heads }
            if x.dtype == .f32 {
                apus_layernorm_forward_f32(
                    to.pointer(), to.rowStride, rows.width, means, deviations, from.pointer(), from.rowStride,
                    rows.width,
                    weight.pointer(), bias?.pointer(), range.count, rows.heads, rows.width, epsilon)
            } else {
                apus_layernorm_forward_bf16(
                    to.pointer(), to.rowStride, rows.width, means, deviations, from.pointer(), from.rowStride,
                    rows.width,
                    weight.pointer(), bias?.pointer(), range.count, rows.heads, rows.width, epsilon)
            }
        }
    }

    public func layerNormBackward(
        _ dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, into dx: Tensor, adds: Bool,
        weightGradient: Tensor?, biasGradient: Tensor?
    ) throws {
        let rows = Rows(x)
        try dy.waitUntilReady()
        try x.waitUntilReady()
        try weight.waitUntilReady()
        try mean.waitUntilReady()
        try rstd.waitUntilReady()
        if adds { try dx.waitUntilReady() }
        try overGradientBlocks(rows, [weightGradient, biasGradient]) { range, partials in
            let (d, from, to) = (dy[range], x[range], dx[range])
            let means = mean.pointer(to: Float.self) + range.lowerBound * rows.heads
            let deviations = rstd.pointer(to: Float.self) + range.lowerBound * rows.heads
            if x.dtype == .f32 {
                apus_layernorm_backward_f32(
                    to.pointer(), to.rowStride, rows.width, partials[0], partials[1], d.pointer(), d.rowStride,
                    rows.width, from.pointer(), from.rowStride, rows.width, weight.pointer(), means, deviations,
                    range.count, rows.heads, rows.width, adds)
            } else {
                apus_layernorm_backward_bf16(
                    to.pointer(), to.rowStride, rows.width, partials[0], partials[1], d.pointer(), d.rowStride,
                    rows.width, from.pointer(), from.rowStride, rows.width, weight.pointer(), means, deviations,
                    range.count, rows.heads, rows.width, adds)
            }
        }
    }

    /// Runs `body` over fixed blocks of tokens, each adding parameter gradients into sums of its own, and then adds the
    /// blocks' sums to `gradients` in block order.
    private func overGradientBlocks(
        _ rows: Rows, _ gradients: [Tensor?],
        _ body: (_ tokens: Range<Int>, _ partials: [UnsafeMutablePointer<Float>?]) -> Void
    ) throws {
        let width = rows.width
        let partials = try empty(Shape(max(rows.blockCount, 1), gradients.count, width), .f32, .workspace)
        fill(partials, with: 0)
        let base = partials.pointer(to: Float.self)
        pool.run(parts: rows.blockCount) { block, _ in
            let sums = gradients.indices.map { index in
                gradients[index] == nil ? nil : base + (block * gradients.count + index) * width
            }
            body(rows.block(block), sums)
        }
        for (index, gradient) in gradients.enumerated() {
            guard let gradient else { continue }
            try accumulateInFloat(gradient) { wide in
                for block in 0..<rows.blockCount {
                    apus_add_scaled_f32(
                        wide.pointer(), 1, base + (block * gradients.count + index) * width, width)
                }
            }
        }
    }
}
