public import ApusData
import ApusExperts
public import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
public import ApusParallel
import ApusTensor

// Shape letters: T tokens, E experts, K choices per token.

/// What one rank comes to, which a layout is compared with: losses, gradients, routing, and weights after a few steps.
public struct LayoutReference: Sendable {
    /// Steps of each run: short, so that a difference is still that of the step and not of a path.
    static let steps = 3

    /// One of the runs.
    struct Run: Sendable {
        /// The loss of each step.
        var losses: [Float] = []
        /// The decisions of each step, by the sequences of a pass and the layer.
        var routing: [[Range<Int>: [Int: RoutingDecision]]] = []
        /// Each parameter after the last step.
        var weights: [String: [Float]] = [:]
    }

    /// The recipe, with what the runs need different.
    let recipe: Recipe
    /// The batches of the steps.
    let batches: [TokenBatch]
    /// Each parameter's gradient of the first step.
    let gradients: [String: [Float]]
    /// Roles and element counts, by name.
    let roles: [String: (role: ParameterRole, count: Int)]
    /// Steps of plain gradient descent.
    let descent: Run
    /// Rate of the descent: a hundredth of the weights' norm in the first step.
    let descentRate: Float
    /// Steps of AdamW.
    let adamW: Run

    /// Runs `recipe`, which has a layout, on one rank over `batches` of its size.
    ///
    /// Passes are as large as those of the layout's ranks, so that the routing of one can be replayed in the other; with a
    /// pooled balance loss, which has no passes, the whole batch is one.
    ///
    /// - Parameter device: Where it runs; `nil` for the processor, on `threads`.
    /// - Throws: ``NonFiniteError``, ``TensorError``.
    public init(
        _ recipe: Recipe, for layout: Layout, batches: [TokenBatch], threads: Int, on device: (any Backend)? = nil
    ) throws {
        var recipe = recipe
        let size = min(recipe.training.microBatch, recipe.training.batch / layout.data)
        let layers = recipe.model.feedForward.indices.compactMap { recipe.model.moe(layer: $0) }
        let isPooled = layers.contains { $0.losses.scope == .pooled }
        recipe.training.microBatch = isPooled ? recipe.training.batch : size
        self.batches = batches
        let single = LayoutRun(batches: batches, threads: threads, device: device)
        let first = try single.start(recipe)
        let start = try first.weightValues()
        var descent = Run()
        let gradients = try single.accumulate(first, step: 1, recording: &descent)
        let rate = 0.01 * Float(start.values.joined().norm / max(gradients.values.joined().norm, 1e-30))
        descentRate = rate
        try single.descend(first, rate: rate)
        for step in 2...Self.steps {
            _ = try single.accumulate(first, step: step, recording: &descent)
            try single.descend(first, rate: rate)
        }
        descent.weights = try first.weightValues()
        // With an epsilon far below the gradients AdamW's first steps are their signs, and rounding decides those of
        // gradients that are nearly zero.
        let count = gradients.values.reduce(0) { $0 + $1.count }
        recipe.training.optimizer.epsilon = Float(1e-3 * gradients.values.joined().norm / Double(count).squareRoot())
        let second = try single.start(recipe)
        var adamW = Run()
        for step in 1...Self.steps { try single.step(second, step: step, recording: &adamW) }
        adamW.weights = try second.weightValues()
        roles = Dictionary(
            uniqueKeysWithValues: second.model.store.parameters.map { ($0.name, ($0.role, $0.shape.count)) })
        self.recipe = recipe
        self.gradients = gradients
        self.descent = descent
        self.adamW = adamW
    }

    /// The names of all parameters, in a fixed order.
    var names: [String] { gradients.keys.sorted() }
}

extension Sequence<Float> {
    /// The root of the sum of squares.
    var norm: Double { reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot() }
}
