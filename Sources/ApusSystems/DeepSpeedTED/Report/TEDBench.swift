import ApusExperts
import ApusKernels
import ApusModels
public import ApusNN
public import ApusParallel
public import ApusTraining

// Shape letters: D model width, F feed-forward width, E experts, K choices per token, V vocabulary.

/// The recipe that the paper's mechanisms are counted on: a base as DeepSpeed-TED takes it, with a mixture in every
/// second layer, small enough for threads of one machine.
public struct TEDBench: Sendable, Equatable {
    /// G.
    public var ranks = 16
    /// Gt.
    public var tensor = 4
    /// Ge.
    public var expert = 4
    /// Layers, of which every second has experts.
    public var layers = 4
    /// D.
    public var width = 128
    /// F of dense layers and of each expert; the paper has 4 D.
    public var hidden = 512
    /// E over Ge: experts of each rank.
    public var expertsPerRank = 2
    /// K.
    public var choices = 1
    /// V.
    public var vocabulary = 512
    /// Tokens of a sequence.
    public var sequence = 64
    /// Sequences of each rank's pass.
    public var microBatch = 2
    /// Passes of a step.
    public var passes = 1
    /// Whether rows are padded to their expert's capacity, as in the paper.
    public var isPadded = true
    /// Capacity of an expert over its share of the tokens.
    public var capacityFactor: Float = 1
    /// Types of weights, gradients and state.
    public var precision = Precision.bf16
    /// What ranks with the same parameters divide.
    public var zero = ZeROStage.optimizerState
    /// The mechanisms.
    public var switches = TEDSwitches(
        checkpointing: true, dropsDuplicates: true, keepsCollectives: true, fusesReduceScatter: true)

    /// The sizes of the report.
    public init() {}

    /// The bench as a recipe. No file is read: ``TEDStep`` makes its tokens.
    public var recipe: Recipe {
        let activation = Activation.geluTanh
        let policy: TokenPolicy =
            isPadded ? .capacity(factor: capacityFactor, minimum: 1, order: .position) : .dropless
        let moe = MoEConfiguration(
            experts: expert * expertsPerRank, choices: choices, width: hidden, activation: activation, policy: policy,
            bank: isPadded ? .padded : .grouped, losses: RouterLosses(balance: 0.01))
        let data = ranks / max(tensor, 1)
        let recipe = Recipe(
            seed: 1,
            model: ModelConfiguration(
                vocabulary: vocabulary, width: width, heads: heads, maximumPositions: sequence, norm: .layer,
                position: .learned, activation: activation,
                feedForward: (0..<layers).map { $0 % 2 == 1 ? .moe(moe) : .dense(width: hidden) }),
            data: DataConfiguration(path: "none", sequenceLength: sequence),
            training: TrainingConfiguration(
                steps: 4, batch: data * microBatch * passes, microBatch: microBatch, precision: precision),
            parallel: ParallelConfiguration(
                layout: LayoutConfiguration(tensor: tensor, expert: .uniform(expert)), zero: zero))
        return switches.applied(to: recipe)
    }

    /// The fewest heads of at most 64 numbers each, at least 4, that the tensor group can share.
    private var heads: Int {
        let wanted = max((width + 63) / 64, 4)
        return (wanted + tensor - 1) / max(tensor, 1) * max(tensor, 1)
    }

    /// The same with other switches.
    public func with(_ switches: TEDSwitches) -> TEDBench {
        var bench = self
        bench.switches = switches
        return bench
    }

    /// Its layout.
    ///
    /// - Throws: ``LayoutError``, which names the nearest layout that works.
    public func layout() throws(LayoutError) -> Layout { try recipe.layout(ranks: ranks) }

    /// P: parameters of the base, which has one expert for each mixture's many.
    public var baseParameters: Int {
        let counts = recipe.model.parameterCounts()
        let experts = expert * expertsPerRank
        return counts.total - counts.experts / experts * (experts - 1) - counts.routers
    }
}
