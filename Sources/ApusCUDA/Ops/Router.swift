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
        let order = try ExpertOrder(slots: slots, experts: experts, chunkSlots: ExpertOrder.chunk(of: slots), on: self)
        for kernel in order.kernels(first: "expert_histogram") {
            try launch(
                kernel, order.launchShape, order.permutation.slotToRow, order.permutation.rowToSlot,
                order.permutation.rowToToken, order.permutation.counts, order.permutation.offsets, order.chunkCounts,
                ids,
                slots, choices, experts, order.chunkSlots)
        }
        return order.permutation
    }
}

/// A permutation to be made, and the chunks of slots that it is made by.
struct ExpertOrder {
    let permutation: RoutingPermutation
    /// (E, chunks) `i32`: each chunk's choices of each expert.
    let chunkCounts: Tensor
    let chunkSlots: Int
    private let chunks: Int
    private let experts: Int

    init(slots: Int, experts: Int, chunkSlots: Int, on backend: CUDABackend) throws {
        precondition(experts <= 1024)
        self.experts = experts
        self.chunkSlots = chunkSlots
        // Without slots there are offsets all the same.
        chunks = max(ceilDivide(slots, chunkSlots), 1)
        permutation = RoutingPermutation(
            slotToRow: try backend.empty(Shape(slots), .i32), rowToSlot: try backend.empty(Shape(slots), .i32),
            rowToToken: try backend.empty(Shape(slots), .i32), counts: try backend.empty(Shape(experts), .i32),
            offsets: try backend.empty(Shape(experts + 1), .i32))
        chunkCounts = try backend.empty(Shape(experts, chunks), .i32, .workspace)
    }

    /// Slots of a chunk: enough that some 128 chunks count all, and a single one where a launch costs more than it does.
    static func chunk(of slots: Int) -> Int { max(2048, ceilDivide(ceilDivide(slots, 128), 1024) * 1024) }

    /// The kernels that make the order, where `first` counts.
    func kernels(first: KernelName) -> [KernelName] { chunks == 1 ? [first] : [first, "expert_place"] }

    /// One warp for each of the tables in shared memory, and two tables more.
    var launchShape: LaunchShape {
        let threads = experts <= 256 ? 1024 : 256
        return .blocks(chunks, threads: threads, sharedBytes: 4 * ((threads / 32 + 2) * experts + 1))
    }
}
