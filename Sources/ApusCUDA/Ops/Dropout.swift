public import ApusKernels
public import ApusTensor

// Shape letters: R rows, F columns of a row that are here.

extension CUDABackend: DropoutOp {
    public func dropRows(_ x: Tensor, _ dropout: RowDropout, into y: Tensor) throws {
        let (rows, width, stream) = (x.shape[0], x.rowCount, dropout.stream)
        precondition(x.shape == y.shape && x.dtype == y.dtype && dropout.numbers.count == 2 * rows)
        precondition(dropout.numbers.isContiguous)
        try launch(
            "drop_rows_\(y.suffix)", .rows(rows, width: width), y, y.rowStride, x, x.rowStride, dropout.numbers, rows,
            width, dropout.firstColumn, dropout.columns, stream.seed, UInt64(stream.word0), UInt64(stream.word1),
            dropout.rate, 1 / (1 - dropout.rate))
    }
}
