public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, K choices per token, R routed rows, D model width.

extension CUDABackend: RoutedRowsOp {
    public func gatherRows(_ x: Tensor, index: Tensor, scale: Tensor?, into y: Tensor) throws {
        let (rows, width) = (y.shape[0], y.rowCount)
        precondition(x.rowCount == width && x.dtype == y.dtype && index.count == rows)
        if width == 1, x.dtype == .f32, scale == nil, x.isContiguous, y.isContiguous {
            return try launch("gather_values_f32", .blocks(ceilDivide(rows, 256)), y, x, index, rows)
        }
        try launch(
            "gather_rows_\(y.suffix)", .rows(rows, width: width), y, y.rowStride, x, x.rowStride, index, scale, rows,
            width)
    }

    public func scatterRows(_ x: Tensor, slotToRow: Tensor, choices: Int, into rows: Tensor) throws {
        let (tokens, width) = (x.shape[0], x.rowCount)
        precondition(rows.rowCount == width && rows.dtype == x.dtype && slotToRow.count == tokens * choices)
        try launch(
            "scatter_rows_\(x.suffix)", .rows(tokens, width: width), rows, rows.rowStride, x, x.rowStride, slotToRow,
            tokens, choices, width)
    }

    public func combineRows(
        _ rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, into y: Tensor, adds: Bool
    ) throws {
        let (tokens, width) = (y.shape[0], y.rowCount)
        precondition(rows.rowCount == width && rows.dtype == y.dtype && slotToRow.count == tokens * choices)
        try launch(
            "combine_rows_\(y.suffix)", .rows(tokens, width: width), y, y.rowStride, rows, rows.rowStride, slotToRow,
            weights, tokens, choices, width, adds)
    }

    public func combineRowsBackward(
        _ dy: Tensor, rows: Tensor, slotToRow: Tensor, weights: Tensor?, choices: Int, drows: Tensor?, dweights: Tensor?
    ) throws {
        let (tokens, width) = (dy.shape[0], dy.rowCount)
        try launch(
            "combine_rows_backward_\(dy.suffix)", .rows(tokens, width: width), drows, drows?.rowStride ?? 0, dweights,
            dy, dy.rowStride, rows, rows.rowStride, slotToRow, weights, tokens, choices, width)
    }
}

extension CUDABackend: MixOp {
    public func mixRows(_ a: Tensor, _ b: Tensor, weights: Tensor, into y: Tensor) throws {
        let (rows, width) = (y.shape[0], y.rowCount)
        precondition(a.shape == b.shape && a.shape == y.shape && weights.count == 2 * rows)
        try launch(
            "mix_rows_\(y.suffix)", .rows(rows, width: width), y, y.rowStride, a, a.rowStride, b, b.rowStride, weights,
            rows, width)
    }

    public func mixRowsBackward(
        _ dy: Tensor, _ a: Tensor, _ b: Tensor, weights: Tensor, da: Tensor, db: Tensor, dweights: Tensor
    ) throws {
        let (rows, width) = (dy.shape[0], dy.rowCount)
        precondition(dy.shape == a.shape && dy.shape == b.shape && weights.count == 2 * rows)
        try launch(
            "mix_rows_backward_\(dy.suffix)", .rows(rows, width: width), da, da.rowStride, db, db.rowStride, dweights,
            dy, dy.rowStride, a, a.rowStride, b, b.rowStride, weights, rows, width)
    }
}
