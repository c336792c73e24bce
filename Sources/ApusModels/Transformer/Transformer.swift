public import ApusExperts
public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, D model width, V vocabulary.

/// A decoder, or an encoder that classifies images: a list of stages (embed, blocks, head) over one parameter store.
///
/// Its code knows one device and takes tokens with a layout, never a rectangle. Any contiguous range of stages can be
/// built and run: what a pipeline rank holds.
public struct Transformer {
    /// What it is made of.
    public let configuration: ModelConfiguration
    /// Its parameters.
    public let store: ParameterStore
    /// Token ids to the stream; `nil` in a range without it.
    public let embed: EmbedStage?
    /// The blocks of the range.
    public let blocks: [Block]
    /// The stream to the loss; `nil` in a range without it.
    public let head: HeadStage?

    /// Which stages to build.
    public struct StageRange: Sendable {
        /// Whether the embedding is in.
        public let hasEmbed: Bool
        /// Which blocks are in.
        public let blocks: Range<Int>
        /// Whether the head is in.
        public let hasHead: Bool

        /// A range of stages.
        public init(hasEmbed: Bool, blocks: Range<Int>, hasHead: Bool) {
            self.hasEmbed = hasEmbed
            self.blocks = blocks
            self.hasHead = hasHead
        }
    }

    /// Makes the router of the MoE layer `layer` from the one that the configuration describes, `standard`: to put
    /// another in its place, or around it.
    public typealias RouterFactory = (_ layer: Int, _ standard: TopKRouter) -> any Router

    /// Builds the stages with undefined weights: ``ParameterStore/initialize(seed:backend:)`` or load them.
    ///
    /// - Parameters:
    ///   - stages: What to build; all by default.
    ///   - positions: Longest sequence to prepare rotary angles for; the configuration's by default.
    ///   - router: Makes each MoE layer's router; the configuration's own by default. The store holds the parameters of
    ///     both, so that the model saves and loads whichever router runs (``furtherParameters``).
    ///   - partition: What this rank holds and computes of the model; the whole by default.
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``, and what the partition throws when
    ///   it cannot cut the model.
    public init(
        _ configuration: ModelConfiguration, backend: any Backend, precision: Precision, isTrained: Bool,
        stages: StageRange? = nil, positions: Int? = nil, router: RouterFactory? = nil,
        partition: any Partition = WholeModel()
    ) throws {
        let range = stages ?? StageRange(hasEmbed: true, blocks: 0..<configuration.layers, hasHead: true)
        var builder = TransformerBuilder(configuration, router: router, partition: partition)
        if case .rotary(let theta) = configuration.position, !range.blocks.isEmpty {
            builder.rotary = try configuration.rotaryTable(
                positions: positions ?? configuration.maximumPositions, theta: theta, backend)
        }
        self.configuration = configuration
        embed = range.hasEmbed ? try builder.embed() : nil
        blocks = try range.blocks.map { try builder.block($0) }
        head = range.hasHead ? try builder.head() : nil
        store = try ParameterStore(
            builder.parameters, backend: backend, precision: precision, isTrained: isTrained, share: partition.share)
    }

    /// Parameters that the configuration does not name: those of a program's own routers. Checkpoints hold them under
    /// their names; only a program that brings the routers can load them.
    public var furtherParameters: [ParameterDescription] {
        let named = Set(configuration.parameterInventory().map(\.name))
        return store.parameters.filter { !named.contains($0.name) }.map {
            // Without a layer: they follow the configuration's parameters in a file.
            ParameterDescription(
                name: $0.name, shape: $0.shape.dimensions, role: $0.role, layer: nil, expert: $0.expert)
        }
    }

    /// The MoE layers with their global index.
    public var moeLayers: [MoELayer] {
        blocks.compactMap { if case .moe(let layer) = $0.feedForward { layer } else { nil } }
    }

    /// What one pass over a batch yields.
    public struct LossResult {
        /// (1) `f32`: the language-model loss, scaled.
        public let loss: Variable
        /// (T) `f32`: each token's cross-entropy in nats, 0 where the target is negative.
        public let perToken: Tensor
        /// (T) `f32`: each token's divergence from a teacher's distribution, likewise; `nil` without a teacher.
        public let divergence: Tensor?
        /// (1) `f32`: the pooled balance loss before its coefficient, when the configuration pools.
        public let pooledBalance: Tensor?
    }

    /// The loss of `tokens` (T) against `targets` (T), negative ones ignored, times `scale`; registered as a root.
    ///
    /// A model of images reads pixels (T * P) in place of token ids, and its targets are classes: one at each class token.
    ///
    /// - Parameters:
    ///   - teacher: What a teacher says of the same tokens; its term joins the loss.
    ///   - checkpointing: Whether blocks run again in backward instead of keeping what it needs.
    public func loss(
        tokens: Tensor, targets: Tensor, scale: Float, teacher: TeacherStates? = nil, checkpointing: Bool = false,
        _ context: MoEContext
    ) throws -> LossResult {
        guard let head else { preconditionFailure("the last stages compute the loss") }
        let tape = context.forward.tape
        let (hidden, routings) = try run(tokens, checkpointing: checkpointing, context)
        let result = try head.loss(
            head.normalized(hidden, on: tape), targets: targets, scale: scale, teacher: teacher, on: tape)
        try tape.addRoot(result.total, seed: 1)
        return LossResult(
            loss: result.total, perToken: result.perToken, divergence: result.divergence,
            pooledBalance: try addPooledBalance(routings, context))
    }

    /// The normalised states (T, D) of `tokens` (T) that the head's product reads.
    public func states(tokens: Tensor, _ context: MoEContext) throws -> Tensor {
        guard let head else { preconditionFailure("the last stages compute logits") }
        return try head.normalized(run(tokens, checkpointing: false, context).hidden, on: context.forward.tape).tensor
    }

    /// Logits (T, V) `f32` of `tokens` (T), or, with `rows` (N) `i32`, of those tokens only: (N, V).
    public func logits(tokens: Tensor, rows: Tensor? = nil, _ context: MoEContext) throws -> Tensor {
        guard let head else { preconditionFailure("the last stages compute logits") }
        let tape = context.forward.tape
        var states = try self.states(tokens: tokens, context)
        if let rows {
            let picked = try tape.backend.empty(Shape(rows.count, states.shape[1]), states.dtype)
            try tape.backend.gatherRows(states, index: rows, scale: nil, into: picked)
            states = picked
        }
        return try head.loss.logits(states, tape.backend)
    }

    private func run(
        _ tokens: Tensor, checkpointing: Bool, _ context: MoEContext
    ) throws -> (hidden: Hidden, routings: [Routing]) {
        guard let embed else { preconditionFailure("the first stages read tokens") }
        var hidden = try embed(tokens, context.forward)
        var routings: [Routing] = []
        for (index, block) in blocks.enumerated() {
            // Its experts may be begun in this block; a checkpointed one keeps to itself.
            let next = checkpointing || index + 1 == blocks.count ? nil : blocks[index + 1]
            hidden = try mark(hidden, layer: block.layer, context.forward)
            let output = try context.forward.tape.part("layer \(block.layer)") {
                checkpointing ? try block.checkpointed(hidden, context) : try block(hidden, context, next: next)
            }
            hidden = output.hidden
            if let routing = output.routing { routings.append(routing) }
        }
        return (try mark(hidden, layer: configuration.layers, context.forward), routings)
    }

    /// Lets backward tell when it has gone through everything from `layer` on.
    ///
    /// Whatever reads parameters of these layers depends on the marked state, so that no schedule visits it later.
    private func mark(_ hidden: Hidden, layer: Int, _ context: ForwardContext) throws -> Hidden {
        guard let tell = context.gradientsComplete, context.tape.isRecording else { return hidden }
        // Experts that were begun ahead have their way into the layer in the one before.
        let first = store.parameters(before: hidden.routed == nil ? layer : layer + 1)
        let inputs = hidden.variables
        let outputs = context.tape.record(
            "boundary", inputs: inputs, outputs: inputs.map(\.tensor), runsAlways: true
        ) { flow in
            for (index, input) in inputs.enumerated() {
                if let gradient = flow.takeOutput(index) { try flow.accumulate(gradient, into: input) }
            }
            try tell(first)
        }
        return hidden.replacing(outputs)
    }

    private func addPooledBalance(_ routings: [Routing], _ context: MoEContext) throws -> Tensor? {
        guard let losses = moeConfigurations.first?.losses, losses.scope == .pooled else { return nil }
        return try PooledBalanceLoss.addRoots(
            routings, coefficient: losses.balance, globalTokens: context.globalTokens, over: context.batchRanks,
            on: context.forward.tape)
    }

    private var moeConfigurations: [MoEConfiguration] {
        (0..<configuration.layers).compactMap { configuration.moe(layer: $0) }
    }
}
