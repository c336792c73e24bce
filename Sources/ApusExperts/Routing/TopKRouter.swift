public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, G routing groups.

/// The learned router of all five systems: a linear score for each expert, the K best chosen.
///
/// 1. Logits `x w^T` in `f32`, from an input that may be jittered (training).
/// 2. Scores: softmax or sigmoid of the logits.
/// 3. Choice: the K highest scores, with a selection bias or Gumbel noise that does not enter the weights.
/// 4. Policy: in training, choices beyond an expert's capacity are dropped.
/// 5. Weights: the kept choices' scores, perhaps renormalised, in `f32`.
/// 6. Losses: balance, z and importance, each a root of its own.
public struct TopKRouter: Router {
    /// (E, D), `f32`.
    public let weight: Parameter
    /// (E): added to scores for the choice alone; `nil` unless the router balances by bias.
    public let selectionBias: Parameter?
    /// K.
    public let choices: Int
    /// How scores become weights.
    public let configuration: RouterConfiguration
    /// Which choices are kept.
    public let policy: TokenPolicy
    /// Whether rows are padded to the capacity.
    public let isPadded: Bool
    /// Coefficients of the losses.
    public let losses: RouterLosses

    /// A router over the given weights.
    public init(
        weight: Parameter, selectionBias: Parameter?, choices: Int, configuration: RouterConfiguration,
        policy: TokenPolicy, isPadded: Bool, losses: RouterLosses
    ) {
        precondition(choices >= 1 && choices <= weight.shape[0])
        self.weight = weight
        self.selectionBias = selectionBias
        self.choices = choices
        self.configuration = configuration
        self.policy = policy
        self.isPadded = isPadded
        self.losses = losses
    }

    /// E.
    public var experts: Int { weight.shape[0] }
    /// The weight, and the selection bias where there is one.
    public var parameters: [Parameter] { [weight] + (selectionBias.map { [$0] } ?? []) }

    public func route(_ x: Variable, layer: Int, _ context: MoEContext) throws -> Routing {
        let tape = context.forward.tape
        let backend = tape.backend
        let input = try jittered(x, layer, context)
        let logits = try backend.empty(Shape(x.shape[0], experts), .f32)
        try weight.withWeights(on: backend.stream) {
            try backend.matMul(input.tensor.matrix, $0.transpose, into: logits)
        }
        var choice: ExpertChoice?
        var formed: Tensor?
        let decide = { () throws -> RoutingDecision in
            guard choosesAtOnce(context) else {
                let scores = try self.scores(of: logits, backend)
                formed = scores
                return try self.decide(logits: logits, scores: scores, layer: layer, context)
            }
            let made = try chooseAtOnce(logits, backend)
            choice = made
            try noteScores(made.scores, layer, context)
            return RoutingDecision(
                ids: made.ids, kept: made.ids, experts: experts, capacities: [], isPadded: false,
                permutation: made.permutation)
        }
        let decision = try context.trace?.decision(layer: layer, decide) ?? decide()
        // A replayed decision comes without scores.
        let scores = try choice?.scores ?? formed ?? self.scores(of: logits, backend)
        let pass = GatePass(
            router: self, input: input, logits: logits, scores: scores, chosenWeights: choice?.weights,
            decision: decision)
        return try pass.record(layer: layer, context)
    }

    /// Whether the choice follows from the logits alone: nothing is dropped, and nothing drawn.
    private func choosesAtOnce(_ context: MoEContext) -> Bool {
        guard context.forward.trainingStep != nil else { return true }
        if case .capacity = policy { return false }
        return !configuration.gumbel
    }

    private func chooseAtOnce(_ logits: Tensor, _ backend: any Backend) throws -> ExpertChoice {
        let choose = { (bias: Tensor?) in
            try backend.chooseExperts(
                logits, choices: choices, isSigmoid: configuration.scoring == .sigmoid, bias: bias, rule: gateRule)
        }
        guard let selectionBias else { return try choose(nil) }
        return try selectionBias.withWeights(on: backend.stream, choose)
    }

    private func scores(of logits: Tensor, _ backend: any Backend) throws -> Tensor {
        let scores = try backend.empty(logits.shape, .f32)
        switch configuration.scoring {
        case .sigmoid: try backend.sigmoid(logits, into: scores)
        case .softmaxThenTopK, .topKThenSoftmax: try backend.softmax(logits, into: scores)
        }
        return scores
    }

    public func finishStep(choices: [Tensor], gradientScale: Tensor, backend: any Backend) throws {
        guard configuration.biasRate > 0, let selectionBias else { return }
        try selectionBias.withWeights(on: backend.stream) {
            try backend.moveSelectionBias(
                $0, choices: choices, rate: configuration.biasRate, gradientScale: gradientScale)
        }
    }

    /// How the weights follow from the scores of the choice.
    var gateRule: GateRule {
        GateRule(
            isSoftmaxOfChosen: configuration.scoring == .topKThenSoftmax, renormalizes: configuration.renormalizes,
            scale: configuration.weightScale)
    }

    private func jittered(_ x: Variable, _ layer: Int, _ context: MoEContext) throws -> Variable {
        guard configuration.jitter > 0, let step = context.forward.trainingStep else { return x }
        let tape = context.forward.tape
        let stream = RandomStream(seed: context.forward.seed, purpose: .routerJitter, layer: layer, step: step)
        let first = UInt64(context.forward.layout.firstGlobalToken * x.shape[1])
        // Drawn again for the backward instead of kept. In `f32`, for `bf16` has seven values between 0.99 and 1.01.
        let noise = { (backend: any Backend) in
            let factors = try backend.empty(x.shape, .f32)
            try backend.fillRandom(
                factors, .uniform(low: 1 - configuration.jitter, high: 1 + configuration.jitter), stream: stream,
                first: first)
            return factors
        }
        let y = try noise(tape.backend)
        try tape.backend.multiply(wide(x.tensor, tape.backend), y, into: y)
        return tape.record("router_jitter", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            let factors = try noise(flow.backend)
            try flow.backend.multiply(dy, factors, into: factors)
            guard x.dtype != .f32 else { return try flow.accumulate(factors, into: x) }
            let dx = try flow.backend.empty(x.shape, x.dtype)
            try flow.backend.convert(factors, into: dx)
            try flow.accumulate(dx, into: x)
        }
    }

    private func wide(_ x: Tensor, _ backend: any Backend) throws -> Tensor {
        guard x.dtype != .f32 else { return x }
        let y = try backend.empty(x.shape, .f32, .workspace)
        try backend.convert(x, into: y)
        return y
    }

    private func decide(
        logits: Tensor, scores: Tensor, layer: Int, _ context: MoEContext
    ) throws -> RoutingDecision {
        let backend = context.forward.tape.backend
        let layout = context.forward.layout
        let ids = try backend.empty(Shape(logits.shape[0], choices), .i32)
        var ranked = configuration.scoring == .sigmoid ? scores : logits
        if configuration.gumbel, let step = context.forward.trainingStep {
            let noise = try backend.empty(logits.shape, .f32, .workspace)
            let stream = RandomStream(seed: context.forward.seed, purpose: .routerGumbel, layer: layer, step: step)
            try backend.fillRandom(
                noise, .gumbel, stream: stream, first: UInt64(layout.firstGlobalToken * experts))
            try backend.add(logits, noise, into: noise)
            if configuration.scoring == .sigmoid { try backend.sigmoid(noise, into: noise) }
            ranked = noise
        }
        try noteScores(ranked, layer, context)
        if let selectionBias {
            try selectionBias.withWeights(on: backend.stream) {
                try backend.topK(ranked, bias: $0, ids: ids, values: nil)
            }
        } else {
            try backend.topK(ranked, bias: nil, ids: ids, values: nil)
        }
        return try applyPolicy(ids, scores: scores, layer: layer, context)
    }

    private func noteScores(_ scores: Tensor, _ layer: Int, _ context: MoEContext) throws {
        guard let trace = context.trace else { return }
        let backend = context.forward.tape.backend
        guard let selectionBias else { return try trace.note(scores, layer: layer, bias: nil, backend) }
        try selectionBias.withWeights(on: backend.stream) { try trace.note(scores, layer: layer, bias: $0, backend) }
    }

    private func applyPolicy(
        _ ids: Tensor, scores: Tensor, layer: Int, _ context: MoEContext
    ) throws -> RoutingDecision {
        let backend = context.forward.tape.backend
        let layout = context.forward.layout
        // Capacity is a budget of training. Outside it a token's experts must not depend on who else is in the batch, nor
        // on whether earlier tokens are in this pass or in the cache, so every choice is computed (decision 009).
        guard case .capacity(let factor, let minimum, let order) = policy, let step = context.forward.trainingStep
        else {
            return RoutingDecision(
                ids: ids, kept: ids, experts: experts, capacities: [], isPadded: false,
                permutation: try backend.sortByExpert(ids, experts: experts))
        }
        let capacities = layout.routingGroups.map { group in
            TokenPolicy.capacity(
                tokens: group.count, experts: experts, choices: choices, factor: factor, minimum: minimum)
        }
        let priority: CapacityPriority
        switch order {
        case .position: priority = .position
        case .probability: priority = .score(scores)
        case .random:
            let stream = RandomStream(
                seed: context.forward.seed, purpose: .tokenSelection, layer: layer, step: step)
            priority = .random(stream, firstGlobalSlot: UInt64(layout.firstGlobalToken * choices))
        }
        let kept = try backend.empty(ids.shape, .i32)
        try backend.limitToCapacity(
            ids, experts: experts, groups: layout.routingGroups, capacities: capacities, priority: priority, into: kept)
        let permutation =
            isPadded
            ? try backend.padToCapacity(kept, experts: experts, groups: layout.routingGroups, capacities: capacities)
            : try backend.sortByExpert(kept, experts: experts)
        return RoutingDecision(
            ids: ids, kept: kept, experts: experts, capacities: capacities, isPadded: isPadded, permutation: permutation
        )
    }
}

extension TokenPolicy {
    /// `C = max(ceil(factor * K * T / E), minimum)`, and never more than the T tokens there are.
    ///
    /// Computed in `f32`, which rounds 1.1 * 100 / 10 to the 11 that is meant; with the factor widened to `f64` it
    /// would be above 11, and C 12.
    static func capacity(tokens: Int, experts: Int, choices: Int, factor: Float, minimum: Int) -> Int {
        let wanted = (Float(Double(tokens) / Double(experts)) * (factor * Float(choices))).rounded(.up)
        // Compared before it is an integer: a factor may ask for more than any integer.
        return wanted >= Float(tokens) ? tokens : min(max(Int(wanted), minimum), tokens)
    }
}
