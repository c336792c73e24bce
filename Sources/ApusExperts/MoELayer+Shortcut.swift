import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, K choices per token, R routed rows.

/// The routed experts of a layer at work on an earlier state of its tokens (ScMoE, Cai et al. 2024, arXiv 2404.05019).
///
/// 1. ``MoELayer/begin(_:_:)``, as soon as that state is there: routing, and the rows' way to the experts.
/// 2. ``compute()``, in the middle of what is to hide the exchanges: the rows have arrived, the experts compute, and the
///    results are on their way back.
/// 3. One of the layer's calls that join it, as late as possible.
///
/// Whatever computes between two steps hides the exchange between them; backward goes through the same steps the other way.
/// Every rank takes each step once and in the same order. A layer with a shortcut runs in one piece, whatever its chunks.
public final class RoutedBranch {
    /// Which experts the earlier state went to.
    public let routing: Routing
    private let layer: MoELayer
    private let x: Variable
    private let draws: MoELayer.Draws?
    private let tape: Tape
    private var flight: InFlight?
    private var combination: InFlightCombination?

    fileprivate init(_ layer: MoELayer, of x: Variable, _ context: MoEContext) throws {
        self.layer = layer
        self.x = x
        tape = context.forward.tape
        routing = try layer.router.route(x, layer: layer.layer, context)
        draws = try layer.draws(routing.decision, context)
        // Without an exchange nothing is on its way, and a bank may have kernels for all steps at once.
        if !isLocal { try dispatch() }
    }

    private var isLocal: Bool { layer.dispatcher is LocalDispatcher }

    private func dispatch() throws {
        flight = try layer.dispatcher.dispatch(x, routing.decision, numbers: draws?.numbers, on: tape)
    }

    /// Computes the experts and starts to bring the results back. A second call does nothing.
    ///
    /// - Throws: what the exchanges end with, or no memory.
    public func compute() throws {
        guard combination == nil else { return }
        if isLocal {
            if draws == nil,
                let whole = try layer.bank.wholeLayer(
                    x, weights: routing.weights, routing.decision, base: { nil }, on: tape)
            {
                combination = InFlightCombination { whole }
                return
            }
            try dispatch()
        }
        guard let flight = flight.take() else { preconditionFailure("the rows of a branch are computed once") }
        let results = try layer.compute(flight.finish(), draws, on: tape)
        combination = try layer.dispatcher.combine(
            results, weights: routing.weights, routing.decision, base: nil, on: tape)
    }

    /// (T, D): waits for the results; once.
    fileprivate func finish() throws -> Variable {
        try compute()
        guard let combination = combination.take() else { preconditionFailure("a branch is joined once") }
        return try combination.finish()
    }
}

extension MoELayer {
    /// Routes `state` (T, D), an earlier state of the layer's tokens, and starts to bring them to their experts.
    ///
    /// - Throws: what the router and the exchange throw, or no memory.
    public func begin(_ state: Variable, _ context: MoEContext) throws -> RoutedBranch {
        try RoutedBranch(self, of: boundary?.enter(state, on: context.forward.tape) ?? state, context)
    }

    /// The shared or residual expert on `x` (T, D), the present state, joined with the branch's experts, which have read
    /// the earlier one.
    ///
    /// - Throws: what the exchange ends with, or no memory.
    public func callAsFunction(_ x: Variable, joining branch: RoutedBranch, _ context: MoEContext) throws -> Output {
        let tape = context.forward.tape
        let x = try boundary?.enter(x, on: tape) ?? x
        let base = try shared?(x, on: tape)
        func routed() throws -> Variable {
            let routed = try branch.finish()
            return try base.map { try tape.add($0, routed) } ?? routed
        }
        let hidden = try residual.map { try $0(x, mixedWith: routed(), on: tape) } ?? routed()
        return Output(hidden: try boundary?.leave(hidden, on: tape) ?? hidden, routing: branch.routing)
    }

    /// The same experts, by the same gate, on `x` (T, D), the present state, added to what the branch has of the earlier
    /// one (DGMoE). No token meets an expert twice: where the gate's best is one that the earlier state went to, the next
    /// best is taken.
    ///
    /// - Throws: what the router and the exchanges throw, or no memory.
    public func callAsFunction(_ x: Variable, beside branch: RoutedBranch, _ context: MoEContext) throws -> Output {
        let tape = context.forward.tape
        let present = try mixed(
            boundary?.enter(x, on: tape) ?? x, context.avoiding(branch.routing.decision.ids))
        let hidden = try tape.add(present.hidden, branch.finish())
        return Output(hidden: try boundary?.leave(hidden, on: tape) ?? hidden, routing: present.routing)
    }
}
