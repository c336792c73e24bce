public import ApusCollectives
import ApusKernels
import ApusTensor

// Shape letters: N ranks, R rows sent, S rows received, D row width.

extension Tape {
    /// Starts an all-to-all of rows: (R, D) to (S, D).
    ///
    /// Backward sends every row's gradient back where the row came from.
    ///
    /// - Parameters:
    ///   - x: (R, D), the rows for each rank one after the other. It may be longer than the rows sent, and gets zeros
    ///     as gradient there.
    ///   - splits: Rows for and from each rank; `nil` for R / N each.
    ///   - rowBound: S, at least the rows received, which are followed by zeros; `nil` for exactly those received.
    ///   - layer: The layer that asks, for messages.
    /// - Throws: ``CollectiveError``, or no memory.
    public func startAllToAll(
        _ x: Variable, splits: RowSplits? = nil, rowBound: Int? = nil, over collective: any Collective,
        layer: Int? = nil
    ) throws -> Exchange {
        let sentRows = splits?.sent.reduce(0, +) ?? x.shape[0]
        let receivedRows = splits?.received.reduce(0, +) ?? x.shape[0]
        let sourceShape = x.shape
        let resultShape = sourceShape.replacingFirst(with: rowBound ?? receivedRows)
        precondition(resultShape[0] >= receivedRows, "\(receivedRows) rows into \(resultShape)")
        return try exchange("all-to-all", x, .allToAll) {
            let result = try backend.empty(resultShape, x.dtype)
            try backend.clearRows(of: result, from: receivedRows)
            return try collective.startAllToAll(
                x.tensor.dense(backend), into: result, splits: splits, after: backend.stream, layer: layer)
        } mirror: { dy, backend in
            let dx = try backend.empty(sourceShape, dy.dtype)
            try backend.clearRows(of: dx, from: sentRows)
            return try collective.startAllToAll(
                dy, into: dx, splits: splits?.mirrored, after: backend.stream, layer: layer)
        }
    }
}

extension Backend {
    /// Sets the rows from `first` on to zero.
    fileprivate func clearRows(of tensor: Tensor, from first: Int) throws {
        if first < tensor.shape[0] { try fill(tensor[first..<tensor.shape[0]], with: 0) }
    }
}
