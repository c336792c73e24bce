public import ApusTensor
import CApusKernels

// Shape letters: T tokens, C channels, W taps.

/// A gated, causal, depthwise convolution of a few taps over the tokens of each sequence: what mixes tokens in the
/// blocks of a hybrid that have no attention (MAD, Poli et al. 2024, section 3.1).
///
/// A row of `x` (T, 3 C) is [b | c | v]: two gates and what is mixed. `taps` is (W, C) of the same type, dense;
/// `taps[j]` weighs what came j tokens before. `positions` (T) `i32` counts the tokens of its sequence, or document,
/// before each: row t reads min(W - 1, positions[t]) rows before it, which is all that keeps sequences apart.
public protocol ShortConvolutionOp {
    /// `y[t] = b[t] * sum over j of taps[j] * c[t - j] * v[t - j]`, (T, C).
    func shortConvolution(_ x: Tensor, taps: Tensor, positions: Tensor, into y: Tensor) throws
    /// `dx = ` the gradient (T, 3 C), which overlaps nothing; `tapGradient += ` its part (W, C), `f32` or `bf16`.
    func shortConvolutionBackward(
        _ dy: Tensor, x: Tensor, taps: Tensor, positions: Tensor, into dx: Tensor, tapGradient: Tensor?) throws
}

extension CPUBackend: ShortConvolutionOp {
    public func shortConvolution(_ x: Tensor, taps: Tensor, positions: Tensor, into y: Tensor) throws {
        let sizes = ConvolutionSizes(x, y, taps, positions)
        for operand in [x, taps, positions] { try operand.waitUntilReady() }
        overRows(sizes.tokens, width: sizes.channels * sizes.taps) { range in
            if x.dtype == .f32 {
                apus_short_convolution_f32(
                    y.pointer(), y.rowStride, x.pointer(), x.rowStride, taps.pointer(), positions.pointer(),
                    range.lowerBound, range.upperBound, sizes.channels, sizes.taps)
            } else {
                apus_short_convolution_bf16(
                    y.pointer(), y.rowStride, x.pointer(), x.rowStride, taps.pointer(), positions.pointer(),
                    range.lowerBound, range.upperBound, sizes.channels, sizes.taps)
            }
        }
    }

    public func shortConvolutionBackward(
        _ dy: Tensor, x: Tensor, taps: Tensor, positions: Tensor, into dx: Tensor, tapGradient: Tensor?
    ) throws {
        let sizes = ConvolutionSizes(x, dy, taps, positions)
        precondition(dx.shape == x.shape && tapGradient?.count ?? taps.count == taps.count)
        for operand in [dy, x, taps, positions] { try operand.waitUntilReady() }
        // Fixed blocks, whose sums are added in their order: no number of threads changes the result.
        let blocks = (sizes.tokens + Self.convolutionBlock - 1) / Self.convolutionBlock
        let partials = try zeros(Shape(max(blocks, 1), taps.count), .f32, .workspace)
        let base = tapGradient == nil ? nil : partials.pointer(to: Float.self)
        pool.run(parts: blocks) { block, _ in
            let begin = block * Self.convolutionBlock
            let end = min(sizes.tokens, begin + Self.convolutionBlock)
            let sums = base.map { $0 + block * taps.count }
            if x.dtype == .f32 {
                apus_short_convolution_backward_f32(
                    dx.pointer(), dx.rowStride, sums, dy.pointer(), dy.rowStride, x.pointer(), x.rowStride,
                    taps.pointer(), positions.pointer(), begin, end, sizes.tokens, sizes.channels, sizes.taps)
            } else {
                apus_short_convolution_backward_bf16(
                    dx.pointer(), dx.rowStride, sums, dy.pointer(), dy.rowStride, x.pointer(), x.rowStride,
                    taps.pointer(), positions.pointer(), begin, end, sizes.tokens, sizes.channels, sizes.taps)
            }
        }
        guard let tapGradient, let base else { return }
        try accumulateInFloat(tapGradient) { wide in
            for block in 0..<blocks {
                apus_add_scaled_f32(wide.pointer(), 1, base + block * taps.count, taps.count)
            }
        }
    }

    /// Rows whose part of the taps' gradient is summed together.
    private static let convolutionBlock = 256
}

/// The extents of a short convolution; traps where its operands do not fit each other.
package struct ConvolutionSizes {
    /// T.
    package let tokens: Int
    /// C.
    package let channels: Int
    /// W.
    package let taps: Int

    /// The extents of `x` (T, 3 C) and `y` (T, C).
    package init(_ x: Tensor, _ y: Tensor, _ taps: Tensor, _ positions: Tensor) {
        tokens = x.shape[0]
        channels = y.rowCount
        self.taps = taps.shape[0]
        precondition(
            y.shape[0] == tokens && x.rowCount == 3 * channels && taps.rowCount == channels && taps.isContiguous
                && taps.dtype == x.dtype && y.dtype == x.dtype && positions.count == tokens && positions.dtype == .i32,
            "a convolution of \(x.shape) by \(taps.shape) into \(y.shape) at \(positions.shape)")
    }
}
