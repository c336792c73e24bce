import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, R routed rows.

/// One mixture-of-experts layer.
///
/// 1. Route: which experts, with which weights.
/// 2. Dispatch: start to bring the tokens there, chunk by chunk; the shared expert computes meanwhile.
/// 3. Compute: the bank, on each chunk's rows.
/// 4. Combine: bring the results back, weighted, summed over a token's choices in order.
///
/// PR-MoE's residual expert (DeepSpeed-MoE section 3.1) is mixed in last: `y = c0 * moe(x) + c1 * dense(x)`.
public struct MoELayer {
    /// Global layer index.
    public let layer: Int
    /// Chooses.
    public let router: any Router
    /// Carries.
    public let dispatcher: any Dispatcher
    /// Computes.
    public let bank: any ExpertBank
    /// An expert for every token, added to the others.
    public let shared: (any FeedForwardLayer)?
    /// An expert for every token, mixed with the others by a learned coefficient.
    public let residual: ResidualExpert?
    /// In how many pieces the tokens are dispatched, so that exchange and computation can overlap.
    public let chunks: Int
    /// What the tokens pass on their way in and out; `nil` when the layer reads the residual stream as it is.
    public let boundary: (any TokenBoundary)?

    /// A layer of its parts.
    public init(
        layer: Int, router: any Router, dispatcher: any Dispatcher = LocalDispatcher(), bank: any ExpertBank,
        shared: (any FeedForwardLayer)? = nil, residual: ResidualExpert? = nil, chunks: Int = 1,
        boundary: (any TokenBoundary)? = nil
    ) {
        precondition(chunks >= 1)
        self.layer = layer
        self.router = router
        self.dispatcher = dispatcher
        self.bank = bank
        self.shared = shared
        self.residual = residual
        self.chunks = chunks
        self.boundary = boundary
    }

    /// What a pass yields.
    public struct Output {
        /// (T, D).
        public let hidden: Variable
        /// The routing, for losses that are formed over layers.
        public let routing: Routing
    }

    /// (T, D) to (T, D).
    public func callAsFunction(_ x: Variable, _ context: MoEContext) throws -> Output {
        let tape = context.forward.tape
        let x = try boundary?.enter(x, on: tape) ?? x
        let routing = try router.route(x, layer: layer, context)
        var hidden: Variable
        if chunks > 1,
            let pieces = try Chunking.split(
                x, routing, into: chunks, mayBeEmpty: dispatcher.exchangesRows, on: tape)
        {
            hidden = try runChunks(pieces, of: x, on: tape)
        } else if dispatcher is LocalDispatcher,
            let whole = try bank.wholeLayer(
                x, weights: routing.weights, routing.decision, base: { try shared?(x, on: tape) }, on: tape)
        {
            hidden = whole
        } else {
            let flight = try dispatcher.dispatch(x, routing.decision, on: tape)
            let base = try shared?(x, on: tape)
            let results = try bank(flight.finish(), on: tape)
            hidden = try dispatcher.combine(
                results, weights: routing.weights, routing.decision, base: base, on: tape
            ).finish()
        }
        if let residual { hidden = try residual(x, mixedWith: hidden, on: tape) }
        return Output(hidden: try boundary?.leave(hidden, on: tape) ?? hidden, routing: routing)
    }

    /// Starts the exchange of the next piece before computing the present one.
    private func runChunks(_ pieces: [Chunking.Piece], of x: Variable, on tape: Tape) throws -> Variable {
        var flight: InFlight? = try dispatcher.dispatch(pieces[0].x, pieces[0].decision, on: tape)
        let base = try shared?(x, on: tape)
        var results: [Variable] = []
        for (index, piece) in pieces.enumerated() {
            guard let present = flight.take() else { preconditionFailure("every piece is dispatched before its turn") }
            if index + 1 < pieces.count {
                flight = try dispatcher.dispatch(pieces[index + 1].x, pieces[index + 1].decision, on: tape)
            }
            let computed = try bank(present.finish(), on: tape)
            let part = try base.map { try Chunking.slice($0, piece.tokens, on: tape) }
            results.append(
                try dispatcher.combine(computed, weights: piece.weights, piece.decision, base: part, on: tape).finish())
        }
        return try Chunking.join(results, on: tape)
    }
}
