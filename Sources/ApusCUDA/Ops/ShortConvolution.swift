public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, C channels, W taps.

extension CUDABackend: ShortConvolutionOp {
    public func shortConvolution(_ x: Tensor, taps: Tensor, positions: Tensor, into y: Tensor) throws {
        let sizes = ConvolutionSizes(x, y, taps, positions)
        try launch(
            "short_convolution_\(x.suffix)", .rows(sizes.tokens, width: sizes.channels), y, y.rowStride, x,
            x.rowStride, taps, positions, sizes.tokens, sizes.channels, sizes.taps)
    }

    public func shortConvolutionBackward(
        _ dy: Tensor, x: Tensor, taps: Tensor, positions: Tensor, into dx: Tensor, tapGradient: Tensor?
    ) throws {
        let sizes = ConvolutionSizes(x, dy, taps, positions)
        precondition(dx.shape == x.shape && tapGradient?.count ?? taps.count == taps.count)
        try launch(
            "short_convolution_backward_\(x.suffix)", .rows(sizes.tokens, width: sizes.channels), dx, dx.rowStride, dy,
            dy.rowStride, x, x.rowStride, taps, positions, sizes.tokens, sizes.channels, sizes.taps)
        guard let tapGradient else { return }
        let blocks = ceilDivide(sizes.tokens, CUDABackend.convolutionBlock)
        let partials = try empty(Shape(max(blocks, 1), taps.count), .f32, .workspace)
        try launch(
            "short_convolution_taps_\(x.suffix)",
            LaunchShape(grid: (ceilDivide(sizes.channels, 256), blocks, sizes.taps), block: (256, 1, 1)), partials, dy,
            dy.rowStride, x, x.rowStride, positions, sizes.tokens, sizes.channels, sizes.taps)
        try addPartials(partials, blocks, into: tapGradient)
    }

    /// Rows of one partial sum; `short_convolution.cu` has the same.
    private static let convolutionBlock = 128
}
