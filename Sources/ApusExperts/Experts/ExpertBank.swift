public import ApusNN

// Shape letters: D model width, E experts, R routed rows.

/// The experts of a layer, computed together on rows sorted by expert.
public protocol ExpertBank {
    /// Experts in this bank.
    var experts: Int { get }
    /// (R, D) to (R, D): row `r` through the expert whose range of `rows.offsets` holds it.
    func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable
    /// The same bank over a contiguous range of its experts.
    func restricted(to experts: Range<Int>) -> Self
    /// Dispatch, experts and combination of the tokens `x` (T, D) as one op, where all experts are on this rank and the
    /// backend has kernels that are faster so; `nil` where not.
    ///
    /// - Parameters:
    ///   - weights: (T, K).
    ///   - base: Gives (T, D) that the sum is added to, in its storage; nothing else may read it afterwards. Not called where
    ///     the result is `nil`.
    func wholeLayer(
        _ x: Variable, weights: Variable, _ decision: RoutingDecision, base: () throws -> Variable?, on tape: Tape
    ) throws -> Variable?
}

extension ExpertBank {
    /// Piece by piece.
    public func wholeLayer(
        _ x: Variable, weights: Variable, _ decision: RoutingDecision, base: () throws -> Variable?, on tape: Tape
    ) throws -> Variable? { nil }
}
