public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, R routed rows.

/// The rows that experts read, sorted by expert: made already, or still to be picked from the tokens.
///
/// A product that can gather picks each row as it reads it, so a one-rank layer never copies its tokens. An exchange
/// between ranks makes the rows, and then `index` is `nil`.
public struct RoutedRows {
    /// (T, D) tokens when there is an index, (R, D) rows when there is none.
    public let source: Variable
    /// (R) `i32`: the token of each row; `nil` when `source` holds the rows.
    public let index: Tensor?
    /// (E + 1) `i32`: first row of each expert.
    public let offsets: Tensor
    /// Most rows that there can be.
    public let rowBound: Int
    /// (R, 2) `f32`: the number of each row's slot in the global batch, in two digits of base 65,536; `nil` unless draws
    /// are keyed by it.
    public let numbers: Tensor?
    private let adjoint: Adjoint?
    /// Rate and draws of the dropout of hidden activations; `nil` for none.
    private let dropout: (rate: Float, stream: RandomStream)?

    /// How gradients of picked rows return to the tokens: each token sums its slots in order, without atomics.
    struct Adjoint {
        let slotToRow: Tensor
        let choices: Int
    }

    /// Rows that exist.
    public init(rows: Variable, offsets: Tensor, numbers: Tensor? = nil) {
        self.init(source: rows, index: nil, offsets: offsets, rowBound: rows.shape[0], numbers: numbers, adjoint: nil)
    }

    /// Rows to be picked from `tokens` as `permutation` says.
    public init(tokens: Variable, permutation: RoutingPermutation, choices: Int, numbers: Tensor? = nil) {
        self.init(
            source: tokens, index: permutation.rowToToken, offsets: permutation.offsets,
            rowBound: permutation.rowToToken.count, numbers: numbers,
            adjoint: Adjoint(slotToRow: permutation.slotToRow, choices: choices))
    }

    /// The same rows, read from another variable of the same values.
    public func reading(_ source: Variable) -> RoutedRows {
        precondition(source.shape == self.source.shape, "rows of \(source.shape) instead of \(self.source.shape)")
        return RoutedRows(
            source: source, index: index, offsets: offsets, rowBound: rowBound, numbers: numbers, adjoint: adjoint,
            dropout: dropout)
    }

    /// The same rows, of whose hidden activations a share of `rate` is to be dropped.
    public func dropping(_ rate: Float, _ stream: RandomStream) -> RoutedRows {
        precondition(numbers != nil, "draws are keyed by the rows' numbers")
        return RoutedRows(
            source: source, index: index, offsets: offsets, rowBound: rowBound, numbers: numbers, adjoint: adjoint,
            dropout: (rate, stream))
    }

    /// How a bank drops of its hidden activations, of which it has the columns from `first` on of `columns`; `nil` when
    /// nothing is dropped.
    public func dropout(from first: Int, of columns: Int) -> RowDropout? {
        guard let dropout, let numbers else { return nil }
        return RowDropout(
            numbers: numbers, firstColumn: first, columns: columns, rate: dropout.rate, stream: dropout.stream)
    }

    private init(
        source: Variable, index: Tensor?, offsets: Tensor, rowBound: Int, numbers: Tensor?, adjoint: Adjoint?,
        dropout: (rate: Float, stream: RandomStream)? = nil
    ) {
        self.source = source
        self.index = index
        self.offsets = offsets
        self.rowBound = rowBound
        self.numbers = numbers
        self.adjoint = adjoint
        self.dropout = dropout
    }

    /// Hands the gradient of the rows (R, D) on to the source.
    public func accumulate(_ gradient: Tensor, _ flow: borrowing GradientFlow) throws {
        guard let adjoint else { return try flow.accumulate(gradient, into: source) }
        try flow.accumulate(into: source) { dx, adds in
            try flow.backend.combineRows(
                gradient, slotToRow: adjoint.slotToRow, weights: nil, choices: adjoint.choices, into: dx, adds: adds)
        }
    }
}
