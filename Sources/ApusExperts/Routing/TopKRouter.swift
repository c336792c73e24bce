public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, E experts, K choices per token, G routing groups.

/// The learned router of all five systems: a score for each expert, the K best chosen.
///
/// 1. Logits `x w^T` in `f32`, from an input that may be jittered (training); or a cosine (``CosineProjection``).
/// 2. Scores: softmax or sigmoid of the logits. A gate that goes from dense to sparse adds noise and divides by a
///    temperature first (``DenseToSparse``).
/// 3. Choice: the K highest scores, with a selection bias or Gumbel noise that does not enter the weights, of all experts or
///    those of a few groups (``GroupLimit``).
/// 4. Policy: in training, choices beyond an expert's capacity are dropped.
/// 5. Weights: the kept choices' scores, perhaps renormalised, in `f32`.
/// 6. Losses: balance, z and importance, each a root of its own.
public struct TopKRouter: Router {
    /// (E, D), or (E, P) for a cosine router; `f32`.
    public let weight: Parameter
    /// What else a cosine router has; `nil` for a linear one.
    public let cosine: CosineProjection?
    /// The gate over nodes of a two-level router; `nil` for a router of one level.
    public let nodes: NodeGate?
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
        weight: Parameter, cosine: CosineProjection? = nil, nodes: NodeGate? = nil, selectionBias: Parameter?,
        choices: Int,
        configuration: RouterConfiguration, policy: TokenPolicy, isPadded: Bool, losses: RouterLosses
    ) {
        precondition(choices >= 1 && choices <= weight.shape[0])
        precondition(cosine.map { $0.projection.shape[0] == weight.shape[1] } ?? true)
        self.weight = weight
        self.cosine = cosine
        self.nodes = nodes
        self.selectionBias = selectionBias
        self.choices = choices
        self.configuration = configuration
        self.policy = policy
        self.isPadded = isPadded
        self.losses = losses
    }

    /// E.
    public var experts: Int { weight.shape[0] }
    /// The weight, what a cosine or two-level router has besides, and the selection bias where there is one.
    public var parameters: [Parameter] {
        (cosine.map { [$0.projection] } ?? []) + (nodes.map { [$0.weight] } ?? []) + [weight]
            + (cosine.map { [$0.temperature] } ?? [])
            + (selectionBias.map { [$0] } ?? [])
    }

    /// What makes the logits.
    var logits: RouterLogits { RouterLogits(weight: weight, cosine: cosine, nodes: nodes) }

    public func route(_ x: Variable, layer: Int, _ context: MoEContext) throws -> Routing {
        let tape = context.forward.tape
        let backend = tape.backend
        let input = try jittered(x, layer, context)
        let (raw, kept) = try logits(input.tensor, backend)
        let (gated, factor) = try annealed(raw, layer, context)
        var choice: ExpertChoice?
        var formed: Tensor?
        let decide = { () throws -> RoutingDecision in
            guard choosesAtOnce(context) else {
                let scores = try self.scores(of: gated, backend)
                formed = scores
                return try self.decide(logits: gated, scores: scores, layer: layer, context)
            }
            let made = try chooseAtOnce(gated, choices: choiceCount(context), backend)
            choice = made
            try noteScores(made.scores, layer, context)
            return RoutingDecision(
                ids: made.ids, kept: made.ids, experts: experts, capacities: [], isPadded: false,
                permutation: made.permutation)
        }
        let decision = try context.trace?.decision(layer: context.key(layer), decide) ?? decide()
        // A replayed decision comes without scores.
        let scores = try choice?.scores ?? formed ?? self.scores(of: gated, backend)
        let pass = GatePass(
            router: self, input: input, rawLogits: raw, keptLogits: kept, logits: gated, logitFactor: factor,
            scores: scores, chosenWeights: choice?.weights, decision: decision)
        return try pass.record(layer: layer, context)
    }

    /// Whether the choice follows from the logits alone: nothing is dropped, and nothing drawn.
    private func choosesAtOnce(_ context: MoEContext) -> Bool {
        if configuration.effectiveGroupLimit != nil || capacityLimit(context) != nil || context.avoided != nil {
            return false
        }
        guard let step = context.forward.trainingStep else { return true }
        if let annealing = configuration.annealing { return annealing.isSparse(step: step) }
        return !configuration.gumbel
    }

    /// K, which is 1 for a gate that has become sparse.
    func choiceCount(_ context: MoEContext) -> Int {
        configuration.annealing?.isSparse(step: context.forward.trainingStep) == true ? 1 : choices
    }

    /// What scores are made of, and its derivative by the logits: these themselves, unless noise joins them and a
    /// temperature divides them.
    private func annealed(
        _ logits: Tensor, _ layer: Int, _ context: MoEContext
    ) throws -> (logits: Tensor, factor: Float) {
        guard let annealing = configuration.annealing else { return (logits, 1) }
        let backend = context.forward.tape.backend
        let step = context.forward.trainingStep
        let factor = 1 / annealing.temperature(step: step)
        let gated = try backend.empty(logits.shape, .f32)
        if let step, !annealing.isSparse(step: step) {
            try fillGumbel(gated, layer, step, context)
            try backend.add(logits, gated, into: gated)
            try backend.scale(gated, by: factor, into: gated)
        } else {
            try backend.scale(logits, by: factor, into: gated)
        }
        return (gated, factor)
    }

    /// Noise for each token and expert, the same however the batch is cut.
    private func fillGumbel(_ noise: Tensor, _ layer: Int, _ step: Int, _ context: MoEContext) throws {
        let stream = RandomStream(
            seed: context.forward.seed, purpose: .routerGumbel, layer: context.key(layer), step: step)
        try context.forward.tape.backend.fillRandom(
            noise, .gumbel, stream: stream, first: UInt64(context.forward.layout.firstGlobalToken * experts))
    }

    private func chooseAtOnce(_ logits: Tensor, choices: Int, _ backend: any Backend) throws -> ExpertChoice {
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
        let stream = RandomStream(
            seed: context.forward.seed, purpose: .routerJitter, layer: context.key(layer), step: step)
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
        var ids = try backend.empty(Shape(logits.shape[0], choiceCount(context)), .i32)
        var ranked = configuration.scoring == .sigmoid ? scores : logits
        if configuration.gumbel, let step = context.forward.trainingStep {
            let noise = try backend.empty(logits.shape, .f32, .workspace)
            try fillGumbel(noise, layer, step, context)
            try backend.add(logits, noise, into: noise)
            if configuration.scoring == .sigmoid { try backend.sigmoid(noise, into: noise) }
            ranked = noise
        }
        let values = configuration.annealing == nil ? nil : try backend.empty(ids.shape, .f32, .workspace)
        if values != nil {
            ranked = scores
        } else if let limit = configuration.effectiveGroupLimit, limit.score != .best, configuration.scoring != .sigmoid
        {
            // Sums of logits would not say what sums of probabilities do.
            let shares = try backend.empty(ranked.shape, .f32, .workspace)
            try backend.softmax(ranked, into: shares)
            ranked = shares
        }
        if let ids = context.avoided { ranked = try AvoidedExperts(ids: ids).applied(to: ranked, backend) }
        let choose = { (bias: Tensor?) in
            guard let limit = configuration.effectiveGroupLimit else {
                try noteScores(ranked, layer, context)
                return try backend.topK(ranked, bias: bias, ids: ids, values: values)
            }
            let limited = try limit.applied(to: ranked, bias: bias, backend)
            try context.trace?.note(limited, layer: context.key(layer), bias: nil, backend)
            try backend.topK(limited, bias: nil, ids: ids, values: values)
        }
        if let selectionBias { try selectionBias.withWeights(on: backend.stream, choose) } else { try choose(nil) }
        if let values, let annealing = configuration.annealing {
            let weighty = try backend.empty(ids.shape, .i32)
            try backend.dropLightChoices(ids, weights: values, below: annealing.threshold, into: weighty)
            ids = weighty
        }
        return try applyPolicy(ids, scores: scores, layer: layer, context)
    }

    private func noteScores(_ scores: Tensor, _ layer: Int, _ context: MoEContext) throws {
        guard let trace = context.trace else { return }
        let backend = context.forward.tape.backend
        guard let selectionBias else { return try trace.note(scores, layer: context.key(layer), bias: nil, backend) }
        try selectionBias.withWeights(on: backend.stream) {
            try trace.note(scores, layer: context.key(layer), bias: $0, backend)
        }
    }
}
