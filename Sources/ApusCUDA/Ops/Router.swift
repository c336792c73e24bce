public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token.

extension CUDABackend: RouterOp {
    public func softmax(_ x: Tensor, into y: Tensor) throws {
        let (rows, width) = (x.shape[0], x.rowCount)
        try launch("softmax", .warps(rows), y, y.rowStride, x, x.rowStride, rows, width)
    }

    public func softmaxBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws {
        let (rows, width) = (y.shape[0], y.rowCount)
        try launch(
            "softmax_backward", .warps(rows), dx, dx.rowStride, dy, dy.rowStride, y, y.rowStride, rows, width)
    }

    public func sigmoid(_ x: Tensor, into y: Tensor) throws {
        precondition(x.isContiguous && y.isContiguous && x.count == y.count)
        try launch("sigmoid", .flat(x.count), y, x, x.count)
    }

    public func sigmoidBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws {
        precondition(dy.isContiguous && y.isContiguous && dx.isContiguous && dy.count == y.count)
        try launch("sigmoid_backward", .flat(y.count), dx, dy, y, y.count)
    }

    public func logSumExp(_ x: Tensor, into result: Tensor) throws {
        let (rows, width) = (x.shape[0], x.rowCount)
        try launch("log_sum_exp", .warps(rows), result, x, x.rowStride, rows, width)
    }

    public func topK(_ scores: Tensor, bias: Tensor?, ids: Tensor, values: Tensor?) throws {
        let (rows, experts, choices) = (scores.shape[0], scores.shape[1], ids.shape[1])
        // The kernel for the fewest experts that will do holds the fewest keys.
        guard choices <= experts, let most = [32, 64, 128, 256, 1024].first(where: { $0 >= experts }) else {
            preconditionFailure("\(choices) of \(experts) experts")
        }
        try launch(
            "top_k_\(most)", .warps(rows), ids, values, scores, scores.rowStride, bias, rows, experts, choices)
    }

    public func sortByExpert(_ ids: Tensor, experts: Int) throws -> RoutingPermutation {
        let slots = ids.count
        let choices = ids.shape.rank == 2 ? ids.shape[1] : 1
        precondition(experts <= 1024)
        let permutation = RoutingPermutation(
            slotToRow: try empty(Shape(slots), .i32), rowToSlot: try empty(Shape(slots), .i32),
            rowToToken: try empty(Shape(slots), .i32), counts: try empty(Shape(experts), .i32),
            offsets: try empty(Shape(experts + 1), .i32))
        let chunks = ceilDivide(slots, CUDABackend.sortedSlots)
        let firstRows = try empty(Shape(max(chunks, 1), experts), .i32, .workspace)
        try launch(
            "expert_histogram", .blocks(chunks, sharedBytes: 4 * experts), firstRows, ids, slots, experts)
        try launch(
            "expert_offsets", .blocks(1, threads: 1024, sharedBytes: 4 * (experts + 1)), permutation.counts,
            permutation.offsets, firstRows, chunks, experts)
        try launch(
            "expert_place", .blocks(chunks, sharedBytes: 32 * experts), permutation.slotToRow, permutation.rowToSlot,
            permutation.rowToToken, firstRows, permutation.offsets, ids, slots, choices, experts)
        return permutation
    }

    /// Slots that one block sorts; `Kernels/permute.cu` has the same.
    private static let sortedSlots = 2048
}
