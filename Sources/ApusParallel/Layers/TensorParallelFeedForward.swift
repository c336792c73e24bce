public import ApusExperts
public import ApusNN

// Shape letters: D model width, F hidden width, N tensor-parallel ranks.

/// A feed-forward layer with F divided over the ranks: each has F / N rows of gate and up, and the columns of down that
/// read them.
public struct TensorParallelFeedForward: FeedForwardLayer {
    /// This rank's part.
    public let local: FeedForward
    /// Between the stream and the layer.
    public let boundary: any TokenBoundary

    /// A divided layer of which `local` is this rank's part.
    public init(local: FeedForward, boundary: any TokenBoundary) {
        self.local = local
        self.boundary = boundary
    }

    public func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable {
        try boundary.leave(local(boundary.enter(x, on: tape), on: tape), on: tape)
    }
}

/// Experts with F divided over ranks that all have the same rows; where no row leaves its rank.
public struct TensorParallelBank: ExpertBank {
    /// This rank's part of every expert.
    public let local: any ExpertBank
    /// Between the rows and the experts.
    public let boundary: any TokenBoundary

    /// A divided bank of which `local` is this rank's part.
    public init(local: any ExpertBank, boundary: any TokenBoundary) {
        self.local = local
        self.boundary = boundary
    }

    public var experts: Int { local.experts }

    public func restricted(to experts: Range<Int>) -> TensorParallelBank {
        TensorParallelBank(local: local.restricted(to: experts), boundary: boundary)
    }

    public func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable {
        try boundary.leave(local(rows.reading(boundary.enter(rows.source, on: tape)), on: tape), on: tape)
    }
}
