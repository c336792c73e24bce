public import ApusTensor
import CApusKernels

// Shape letters: T tokens, E experts, K choices per token, R routed rows.

/// Where each routed row comes from and goes to: slots ordered by expert, stably.
///
/// Slot `t * K + k` is choice `k` of token `t`. Everything is `i32` and lives on the device; R is known to the host as an
/// upper bound only (the number of slots).
public struct RoutingPermutation: Sendable {
    /// (slots) the row of each slot; -1 for a dropped one.
    public let slotToRow: Tensor
    /// (slots) the slot of each row, its first R entries valid.
    public let rowToSlot: Tensor
    /// (slots) the token of each row, its first R entries valid.
    public let rowToToken: Tensor
    /// (E) rows of each expert.
    public let counts: Tensor
    /// (E + 1) first row of each expert, and R.
    public let offsets: Tensor

    /// A permutation made of its parts.
    public init(slotToRow: Tensor, rowToSlot: Tensor, rowToToken: Tensor, counts: Tensor, offsets: Tensor) {
        self.slotToRow = slotToRow
        self.rowToSlot = rowToSlot
        self.rowToToken = rowToToken
        self.counts = counts
        self.offsets = offsets
    }
}

/// The arithmetic of routers, in `f32` whatever the model's precision.
public protocol RouterOp {
    /// Softmax of each row of (T, E); `y` may be `x`.
    func softmax(_ x: Tensor, into y: Tensor) throws
    /// `dx = y * (dy - sum(y * dy))` of each row; `dx` may be `dy`.
    func softmaxBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws
    /// `1 / (1 + exp(-x))`; `y` may be `x`.
    func sigmoid(_ x: Tensor, into y: Tensor) throws
    /// `dx = dy * y * (1 - y)`.
    func sigmoidBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws
    /// (T) `log(sum(exp(x)))` of each row.
    func logSumExp(_ x: Tensor, into result: Tensor) throws
    /// The K highest of each row's scores, highest first, ties to the lowest id: `ids` (T, K) `i32`, `values` (T, K).
    /// `bias` (E) is added for the choice alone (DeepSeek-V3's selection bias).
    func topK(_ scores: Tensor, bias: Tensor?, ids: Tensor, values: Tensor?) throws
    /// Orders slots by expert; `ids` (T, K), -1 for a dropped slot.
    func sortByExpert(_ ids: Tensor, experts: Int) throws -> RoutingPermutation
}

extension CPUBackend: RouterOp {
    public func softmax(_ x: Tensor, into y: Tensor) throws {
        try x.waitUntilReady()
        overRows(x.shape[0], width: x.rowCount) { range in
            let (from, to) = (x[range], y[range])
            apus_softmax_forward_f32(
                to.pointer(), to.rowStride, from.pointer(), from.rowStride, range.count, from.rowCount, 1)
        }
    }

    public func softmaxBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws {
        try dy.waitUntilReady()
        try y.waitUntilReady()
        overRows(y.shape[0], width: y.rowCount) { range in
            let (d, value, to) = (dy[range], y[range], dx[range])
            apus_softmax_backward_f32(
                to.pointer(), to.rowStride, d.pointer(), d.rowStride, value.pointer(), value.rowStride, range.count,
                value.rowCount, 1)
        }
    }

    public func sigmoid(_ x: Tensor, into y: Tensor) throws {
        try x.waitUntilReady()
        overElements(x.count) { begin, count in
            apus_sigmoid_forward_f32(y.pointer(to: Float.self) + begin, x.pointer(to: Float.self) + begin, count)
        }
    }

    public func sigmoidBackward(_ dy: Tensor, y: Tensor, into dx: Tensor) throws {
        try dy.waitUntilReady()
        try y.waitUntilReady()
        overElements(y.count) { begin, count in
            apus_sigmoid_backward_f32(
                dx.pointer(to: Float.self) + begin, dy.pointer(to: Float.self) + begin,
                y.pointer(to: Float.self) + begin,
                count)
        }
    }

    public func logSumExp(_ x: Tensor, into result: Tensor) throws {
        try x.waitUntilReady()
        overRows(x.shape[0], width: x.rowCount) { range in
            let from = x[range]
            apus_logsumexp_f32(
                result.pointer(to: Float.self) + range.lowerBound, from.pointer(), from.rowStride, range.count,
                from.rowCount)
        }
    }

    public func topK(_ scores: Tensor, bias: Tensor?, ids: Tensor, values: Tensor?) throws {
        let (experts, choices) = (scores.shape[1], ids.shape[1])
        precondition(choices <= experts && experts <= Int(APUS_TOPK_MAX_EXPERTS))
        try scores.waitUntilReady()
        try bias?.waitUntilReady()
        overRows(scores.shape[0], width: experts * 4) { range in
            let from = scores[range]
            _ = apus_topk_f32(
                ids[range].pointer(), values.map { $0[range].pointer() }, from.pointer(), from.rowStride,
                bias?.pointer(), range.count, experts, choices)
        }
    }

    public func sortByExpert(_ ids: Tensor, experts: Int) throws -> RoutingPermutation {
        let slots = ids.count
        let choices = ids.shape.rank == 2 ? ids.shape[1] : 1
        let permutation = RoutingPermutation(
            slotToRow: try empty(Shape(slots), .i32), rowToSlot: try empty(Shape(slots), .i32),
            rowToToken: try empty(Shape(slots), .i32), counts: try empty(Shape(experts), .i32),
            offsets: try empty(Shape(experts + 1), .i32))
        try ids.waitUntilReady()
        _ = apus_expert_sort(
            permutation.rowToSlot.pointer(), permutation.rowToToken.pointer(), permutation.slotToRow.pointer(),
            permutation.counts.pointer(), permutation.offsets.pointer(), ids.pointer(), slots, choices, experts, 1)
        return permutation
    }
}
