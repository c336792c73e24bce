public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, R routed rows.

/// An exchange of rows under way, which finishing uses up: to finish it twice does not compile.
public struct InFlight: ~Copyable {
    private let complete: () throws -> RoutedRows

    /// An exchange that `complete` waits for.
    public init(_ complete: @escaping () throws -> RoutedRows) { self.complete = complete }

    /// Waits for the rows.
    public consuming func finish() throws -> RoutedRows { try complete() }
}

/// A combination under way: the way back of an exchange, used up like ``InFlight``.
public struct InFlightCombination: ~Copyable {
    private let complete: () throws -> Variable

    /// A combination that `complete` waits for.
    public init(_ complete: @escaping () throws -> Variable) { self.complete = complete }

    /// Waits for the combined tokens (T, D).
    public consuming func finish() throws -> Variable { try complete() }
}

/// Carries tokens to the experts and results back. What lies between start and finish may compute in the meantime.
public protocol Dispatcher {
    /// Whether rows go to other ranks, so that every rank must dispatch the same number of times.
    var exchangesRows: Bool { get }
    /// Starts to bring the tokens of `x` (T, D) to their experts. `decision` covers exactly these tokens: a layer that
    /// runs in chunks passes ranges of tokens with the decision restricted to them.
    ///
    /// - Parameter numbers: (T, 2 K) `f32` numbers of the slots, which arrive as ``RoutedRows/numbers``; `nil` when nobody
    ///   reads them there. Whether there are any is the same on every rank.
    func dispatch(_ x: Variable, _ decision: RoutingDecision, numbers: Tensor?, on tape: Tape) throws -> InFlight
    /// Starts to bring the experts' results (R, D) back, weighted and summed over each token's choices in order.
    ///
    /// - Parameter base: (T, D) that the sum is added to, in its storage; nothing else may read it afterwards.
    func combine(
        _ results: Variable, weights: Variable, _ decision: RoutingDecision, base: Variable?, on tape: Tape
    ) throws -> InFlightCombination
}

extension Dispatcher {
    /// Nothing leaves the rank.
    public var exchangesRows: Bool { false }

    /// Starts to bring tokens to experts that do not ask for their numbers.
    public func dispatch(_ x: Variable, _ decision: RoutingDecision, on tape: Tape) throws -> InFlight {
        try dispatch(x, decision, numbers: nil, on: tape)
    }
}
