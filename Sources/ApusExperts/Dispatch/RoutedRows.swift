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
    private let adjoint: Adjoint?

    /// How gradients of picked rows return to the tokens: each token sums its slots in order, without atomics.
    struct Adjoint {
        let slotToRow: Tensor
        let choices: Int
    }

    /// Rows that exist.
    public init(rows: Variable, offsets: Tensor) {
        source = rows
        index = nil
        self.offsets = offsets
        rowBound = rows.shape[0]
        adjoint = nil
    }

    /// Rows to be picked from `tokens` as `permutation` says.
    public init(tokens: Variable, permutation: RoutingPermutation, choices: Int) {
        source = tokens
        index = permutation.rowToToken
        offsets = permutation.offsets
        rowBound = permutation.rowToToken.count
        adjoint = Adjoint(slotToRow: permutation.slotToRow, choices: choices)
    }

    /// The same rows, read from another variable of the same values.
    public func reading(_ source: Variable) -> RoutedRows {
        precondition(source.shape == self.source.shape, "rows of \(source.shape) instead of \(self.source.shape)")
        return RoutedRows(source: source, index: index, offsets: offsets, rowBound: rowBound, adjoint: adjoint)
    }

    private init(source: Variable, index: Tensor?, offsets: Tensor, rowBound: Int, adjoint: Adjoint?) {
        self.source = source
        self.index = index
        self.offsets = offsets
        self.rowBound = rowBound
        self.adjoint = adjoint
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
