public import ApusTensor
import CApusKernels

// Shape letters: T tokens, K choices per token, R routed rows, D model width. A row of -1 means none.

/// Moving rows between token order and expert order; no one-hot products, no atomics.
public protocol RoutedRowsOp {
    /// `y[r] = scale[r] * x[index[r]]`; -1 gives a zero row, `scale` (R) `f32` may be left out.
    func gatherRows(_ x: Tensor, index: Tensor, scale: Tensor?, into y: Tensor) throws
    /// `rows[slotToRow[t * K + k]] = x[t]`: the gather by the inverse map, which reads each token once. Rows that no slot
    /// names are left alone.
    func scatterRows(_ x: Tensor, slotToRow: Tensor, choices: Int, into rows: Tensor) throws
    /// `y[t] (+)= sum over k of weights[t, k] * rows[slotToRow[t * K + k]]`, in the order of k. Without weights this is the
    /// adjoint of a gather.
    func combineRows(_ rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, into y: Tensor, adds: Bool)
        throws
    /// `drows[row] = weights[t, k] * dy[t]` and `dweights[t, k] = dot(rows[row], dy[t])`, 0 for a slot without a row.
    func combineRowsBackward(
        _ dy: Tensor, rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, drows: Tensor?, dweights: Tensor?
    )
        throws
}

extension CPUBackend: RoutedRowsOp {
    public func gatherRows(_ x: Tensor, index: Tensor, scale: Tensor?, into y: Tensor) throws {
        precondition(index.count >= y.shape[0] && x.rowCount == y.rowCount && x.dtype == y.dtype)
        try x.waitUntilReady()
        try index.waitUntilReady()
        try scale?.waitUntilReady()
        overRows(y.shape[0], width: y.rowCount) { range in
            let to = y[range]
            let rows = index.pointer(to: Int32.self) + range.lowerBound
            let factors = scale.map { $0.pointer(to: Float.self) + range.lowerBound }
            if x.dtype == .f32 {
                apus_gather_rows_f32(
                    to.pointer(), to.rowStride, x.pointer(), x.rowStride, rows, factors, range.count, x.rowCount)
            } else {
                apus_gather_rows_bf16(
                    to.pointer(), to.rowStride, x.pointer(), x.rowStride, rows, factors, range.count, x.rowCount)
            }
        }
    }

    public func scatterRows(_ x: Tensor, slotToRow: Tensor, choices: Int, into rows: Tensor) throws {
        precondition(x.rowCount == rows.rowCount && x.dtype == rows.dtype && slotToRow.count == x.shape[0] * choices)
        try x.waitUntilReady()
        try slotToRow.waitUntilReady()
        let bytes = x.dtype.byteCount(elements: x.rowCount)
        // Slots name different rows, so that tokens do not get in each other's way.
        overRows(x.shape[0], width: choices * x.rowCount) { range in
            let slots = slotToRow.pointer(to: Int32.self)
            for token in range {
                for slot in token * choices..<(token + 1) * choices where slots[slot] >= 0 {
                    let row = rows[Int(slots[slot])..<Int(slots[slot]) + 1]
                    row.rawPointer.copyMemory(from: x[token..<token + 1].rawPointer, byteCount: bytes)
                }
            }
        }
    }

    public func combineRows(
        _ rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, into y: Tensor, adds: Bool
    ) throws {
        precondition(rows.rowCount == y.rowCount && rows.dtype == y.dtype && slotToRow.count == y.shape[0] * choices)
        try rows.waitUntilReady()
        try slotToRow.waitUntilReady()
        try weights?.waitUntilReady()
        if adds { try y.waitUntilReady() }
        overRows(y.shape[0], width: choices * y.rowCount) { range in
            let to = y[range]
            let slots = slotToRow.pointer(to: Int32.self) + range.lowerBound * choices
            let factors = weights.map { $0.pointer(to: Float.self) + range.lowerBound * choices }
            if y.dtype == .f32 {
                apus_combine_forward_f32(
                    to.pointer(), to.rowStride, rows.pointer(), rows.rowStride, slots, factors, range.count, choices,
                    y.rowCount, adds)
            } else {
                apus_combine_forward_bf16(
                    to.pointer(), to.rowStride, rows.pointer(), rows.rowStride, slots, factors, range.count, choices,
                    y.rowCount, adds)
            }
        }
    }

    public func combineRowsBackward(
        _ dy: Tensor, rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, drows: Tensor?, dweights: Tensor?
    ) throws {
        try dy.waitUntilReady()
        try rows.waitUntilReady()
        try slotToRow.waitUntilReady()
        try weights?.waitUntilReady()
        overRows(dy.shape[0], width: choices * dy.rowCount) { range in
            let from = dy[range]
            let slots = slotToRow.pointer(to: Int32.self) + range.lowerBound * choices
            let factors = weights.map { $0.pointer(to: Float.self) + range.lowerBound * choices }
            let sums = dweights.map { $0.pointer(to: Float.self) + range.lowerBound * choices }
            if dy.dtype == .f32 {
                apus_combine_backward_f32(
                    drows?.pointer(), drows?.rowStride ?? 0, sums, from.pointer(), from.rowStride, rows.pointer(),
                    rows.rowStride, slots, factors, range.count, choices, dy.rowCount)
            } else {
                apus_combine_backward_bf16(
                    drows?.pointer(), drows?.rowStride ?? 0, sums, from.pointer(), from.rowStride, rows.pointer(),
                    rows.rowStride, slots, factors, range.count, choices, dy.rowCount)
            }
        }
    }
}
