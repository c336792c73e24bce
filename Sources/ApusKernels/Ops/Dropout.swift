public import ApusTensor
import CApusKernels

// Shape letters: R rows, F columns of a row that are here.

/// What rows are dropped by: the same numbers give the same draws wherever the rows lie.
public struct RowDropout: Sendable {
    /// (R, 2) `f32`: the number of each row in a larger whole, in digits of base 65,536, the higher first. Both are whole
    /// numbers that `f32` holds exactly, and travel as rows of activations do.
    public let numbers: Tensor
    /// The first column that is here: a rank may hold a part of every row.
    public let firstColumn: Int
    /// Columns of a whole row.
    public let columns: Int
    /// Probability of each number to be dropped, below 1.
    public let rate: Float
    /// Draws; element `i` of a row numbered `n` has the index `n * columns + firstColumn + i`.
    public let stream: RandomStream

    /// A dropout of rows.
    public init(numbers: Tensor, firstColumn: Int = 0, columns: Int, rate: Float, stream: RandomStream) {
        self.numbers = numbers
        self.firstColumn = firstColumn
        self.columns = columns
        self.rate = rate
        self.stream = stream
    }
}

/// Setting numbers to zero at random (Srivastava et al. 2014).
public protocol DropoutOp {
    /// `y = x / (1 - rate)`, and 0 where the draw is below the rate; (R, F), `y` may be `x`. The op is its own adjoint.
    func dropRows(_ x: Tensor, _ dropout: RowDropout, into y: Tensor) throws
}

extension CPUBackend: DropoutOp {
    public func dropRows(_ x: Tensor, _ dropout: RowDropout, into y: Tensor) throws {
        precondition(x.shape == y.shape && x.dtype == y.dtype && dropout.numbers.count == 2 * x.shape[0])
        precondition(dropout.numbers.isContiguous)
        try x.waitUntilReady()
        try dropout.numbers.waitUntilReady()
        let rule = apus_dropout(
            stream: dropout.stream.kernelStream, first: UInt64(dropout.firstColumn), total: UInt64(dropout.columns),
            rate: dropout.rate, factor: 1 / (1 - dropout.rate))
        overRows(x.shape[0], width: 4 * x.rowCount) { range in
            let (from, to) = (x[range], y[range])
            let numbers = dropout.numbers.pointer(to: Float.self) + 2 * range.lowerBound
            if x.dtype == .f32 {
                apus_dropout_rows_f32(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, numbers, range.count, x.rowCount, rule)
            } else {
                apus_dropout_rows_bf16(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, numbers, range.count, x.rowCount, rule)
            }
        }
    }
}
