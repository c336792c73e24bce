import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, R routed rows.

/// One mixture-of-experts layer.
///
/// 1. Route: which experts, with which weights.
/// 2. Dispatch: start to bring the tokens there, chunk by chunk; the shared expert computes meanwhile.
/// 3. Compute: the bank, on each chunk's rows. In training a share of the experts' hidden activations may be dropped.
/// 4. Combine: bring the results back, weighted, summed over a token's choices in order.
///
/// PR-MoE's residual expert (DeepSpeed-MoE section 3.1) computes while results come back, unless chunks do by then, and is
/// mixed in last: `y = c0 * moe(x) + c1 * dense(x)`. Experts that read an earlier state than the shared one run as a
/// ``RoutedBranch`` (`MoELayer+Shortcut.swift`).
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
    /// Share of the routed experts' hidden activations that is dropped in training; 0 for none.
    public let dropout: Float
    /// What the tokens pass on their way in and out; `nil` when the layer reads the residual stream as it is.
    public let boundary: (any TokenBoundary)?

    /// A layer of its parts.
    public init(
        layer: Int, router: any Router, dispatcher: any Dispatcher = LocalDispatcher(), bank: any ExpertBank,
        shared: (any FeedForwardLayer)? = nil, residual: ResidualExpert? = nil, chunks: Int = 1, dropout: Float = 0,
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
        self.dropout = dropout
        self.boundary = boundary
    }

    /// The same parts as the mixture of another layer, which then shares their parameters.
    public func at(layer: Int) -> MoELayer {
        MoELayer(
            layer: layer, router: router, dispatcher: dispatcher, bank: bank, shared: shared, residual: residual,
            chunks: chunks, dropout: dropout, boundary: boundary)
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
        let output = try mixed(boundary?.enter(x, on: tape) ?? x, context)
        return Output(hidden: try boundary?.leave(output.hidden, on: tape) ?? output.hidden, routing: output.routing)
    }

    /// Steps 1 to 4 and the residual expert, for all tokens (T, D).
    func mixed(_ x: Variable, _ context: MoEContext) throws -> Output {
        let tape = context.forward.tape
        let routing = try router.route(x, layer: layer, context)
        let draws = try draws(routing.decision, context)
        var combination: InFlightCombination?
        if chunks > 1,
            let pieces = try Chunking.split(
                x, routing, into: chunks, mayBeEmpty: dispatcher.exchangesRows, on: tape)
        {
            let joined = try runChunks(pieces, of: x, draws, on: tape)
            combination = InFlightCombination { joined }
        } else if draws == nil, dispatcher is LocalDispatcher,
            let whole = try bank.wholeLayer(
                x, weights: routing.weights, routing.decision, base: { try shared?(x, on: tape) }, on: tape)
        {
            combination = InFlightCombination { whole }
        } else {
            let flight = try dispatcher.dispatch(x, routing.decision, numbers: draws?.numbers, on: tape)
            let base = try shared?(x, on: tape)
            let results = try compute(flight.finish(), draws, on: tape)
            combination = try dispatcher.combine(
                results, weights: routing.weights, routing.decision, base: base, on: tape)
        }
        func routed() throws -> Variable {
            guard let combination = combination.take() else { preconditionFailure("results come back once") }
            return try combination.finish()
        }
        let hidden = try residual.map { try $0(x, mixedWith: routed(), on: tape) } ?? routed()
        return Output(hidden: hidden, routing: routing)
    }

    /// What the dropout of a pass draws by.
    struct Draws {
        /// (T, 2 K).
        let numbers: Tensor
        let stream: RandomStream
    }

    func draws(_ decision: RoutingDecision, _ context: MoEContext) throws -> Draws? {
        guard dropout > 0, let step = context.forward.trainingStep else { return nil }
        let numbers = try SlotNumbers.of(
            tokens: decision.tokenCount, from: context.forward.layout.firstGlobalToken, choices: decision.choices,
            context.forward.tape.backend)
        return Draws(
            numbers: numbers,
            stream: RandomStream(
                seed: context.forward.seed, purpose: .expertDropout, layer: context.key(layer), step: step))
    }

    func compute(_ rows: RoutedRows, _ draws: Draws?, on tape: Tape) throws -> Variable {
        try bank(draws.map { rows.dropping(dropout, $0.stream) } ?? rows, on: tape)
    }

    /// Starts the exchange of the next piece before computing the present one.
    private func runChunks(
        _ pieces: [Chunking.Piece], of x: Variable, _ draws: Draws?, on tape: Tape
    ) throws -> Variable {
        func dispatch(_ piece: Chunking.Piece) throws -> InFlight {
            try dispatcher.dispatch(piece.x, piece.decision, numbers: draws?.numbers[piece.tokens], on: tape)
        }
        var flight: InFlight? = try dispatch(pieces[0])
        let base = try shared?(x, on: tape)
        var results: [Variable] = []
        for (index, piece) in pieces.enumerated() {
            guard let present = flight.take() else { preconditionFailure("every piece is dispatched before its turn") }
            if index + 1 < pieces.count {
                flight = try dispatch(pieces[index + 1])
            }
            let computed = try compute(present.finish(), draws, on: tape)
            let part = try base.map { try Chunking.slice($0, piece.tokens, on: tape) }
            results.append(
                try dispatcher.combine(computed, weights: piece.weights, piece.decision, base: part, on: tape).finish())
        }
        return try Chunking.join(results, on: tape)
    }
}
