public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, D model width.

extension CUDABackend: EmbeddingOp {
    public func embed(_ tokens: Tensor, table: Tensor, into y: Tensor) throws {
        try gatherRows(table, index: tokens, scale: nil, into: y)
    }

    public func embedBackward(_ dy: Tensor, tokens: Tensor, into gradient: Tensor) throws {
        let (count, width) = (dy.shape[0], dy.rowCount)
        precondition(tokens.count == count && gradient.rowCount == width)
        // Tokens are ordered by id, so that each row of the gradient is summed by one block, in the order of t.
        let places = try zeros(Shape(count), .i32, .workspace)
        let order = try empty(Shape(count), .i32, .workspace)
        try launch(
            "embedding_places",
            LaunchShape(grid: (ceilDivide(count, 256), ceilDivide(count, 4096), 1), block: (256, 1, 1)), places, tokens,
            count)
        try launch("embedding_order", .blocks(ceilDivide(count, 256)), order, places, count)
        try launch(
            "embedding_backward_\(dy.suffix)_\(gradient.suffix)",
            LaunchShape(grid: (count, ceilDivide(width, 512), 1), block: (64, 1, 1)), gradient, gradient.rowStride, dy,
            dy.rowStride, tokens, order, count, width)
    }
}
