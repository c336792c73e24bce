import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// One way to train a tiny model: together the cases meet every kind of layer, router, policy, bank and loss.
struct TrainingCase: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let model: ModelConfiguration
    var routingGroup = 1
    var checkpointing = false

    func training(
        _ precision: Precision = .f32, batch: Int = 4, microBatch: Int = 2
    ) -> TrainingConfiguration {
        TrainingConfiguration(
            steps: 6, batch: batch, microBatch: microBatch, precision: precision,
            optimizer: .init(learningRate: 0.01), clipNorm: 1, checkpointing: checkpointing, routingGroup: routingGroup)
    }

    static let all = [
        TrainingCase(
            testDescription: "dropless, jitter, Gumbel noise",
            model: decoder(
                moe(
                    router: RouterConfiguration(renormalizes: true, jitter: 0.05, gumbel: true),
                    losses: RouterLosses(balance: 0.02, z: 0.01, importance: 0.02)))),
        TrainingCase(
            testDescription: "capacity by random token selection, groups of two, checkpointed",
            model: decoder(
                moe(
                    router: RouterConfiguration(jitter: 0.05),
                    policy: .capacity(factor: 0.7, minimum: 1, order: .random),
                    losses: RouterLosses(balance: 0.02, z: 0.01)), keyValueHeads: 1),
            routingGroup: 2, checkpointing: true),
        TrainingCase(
            testDescription: "padded capacity by probability, shared expert, tied embeddings",
            model: decoder(
                moe(
                    policy: .capacity(factor: 1, minimum: 2, order: .probability), bank: .padded,
                    losses: RouterLosses(balance: 0.02, importance: 0.02), sharedWidth: 12), isTied: true)),
        TrainingCase(
            testDescription: "sigmoid with selection bias, head norm, checkpointed",
            model: decoder(
                moe(
                    router: RouterConfiguration(
                        scoring: .sigmoid, renormalizes: true, weightScale: 1.5, biasRate: 0.05),
                    losses: RouterLosses(balance: 0.02)), queryKeyNorm: .head), checkpointing: true),
        TrainingCase(
            testDescription: "latent attention, shared expert, groups with a selection bias",
            model: {
                var model = decoder(
                    moe(
                        router: RouterConfiguration(
                            scoring: .sigmoid, renormalizes: true, biasRate: 0.05,
                            groupLimit: GroupLimit(groups: 2, chosen: 1, score: .bestTwo)),
                        losses: RouterLosses(balance: 0.02), sharedWidth: 12))
                model.latent = LatentConfiguration(
                    queryRank: 9, keyValueRank: 8, plainWidth: 4, rotaryWidth: 4, valueWidth: 6)
                (model.keyValueHeads, model.headWidth) = (model.heads, 8)
                return model
            }()),
        TrainingCase(
            testDescription: "an encoder of images, capacity by importance, padded",
            model: {
                var model = decoder(
                    moe(
                        activation: .gelu,
                        policy: .capacity(factor: 1, minimum: 1, order: .importance), bank: .padded,
                        losses: RouterLosses(balance: 0.02, importance: 0.01)), norm: .layer, position: .learned)
                model.patches = PatchConfiguration(height: 15, width: 1, size: 1)
                return model
            }()),
        TrainingCase(
            testDescription: "convolutions around attention, checkpointed",
            model: {
                var model = decoder(moe(losses: RouterLosses(balance: 0.02)))
                model.convolution = ConvolutionConfiguration(layers: [0], width: 3)
                return model
            }(), checkpointing: true),
        TrainingCase(
            testDescription: "learned positions, LayerNorm, residual expert, padded by position",
            model: decoder(
                moe(
                    activation: .geluTanh, router: RouterConfiguration(scoring: .topKThenSoftmax, gumbel: true),
                    policy: .capacity(factor: 1.25, minimum: 1, order: .position), bank: .padded,
                    losses: RouterLosses(balance: 0.02), sharedWidth: 8, isResidual: true),
                norm: .layer, position: .learned, isTied: true)),
    ]

    /// Routers that only some tests need.
    static let routers = [
        TrainingCase(
            testDescription: "expert dropout, capacity for evaluation, checkpointed",
            model: decoder(
                moe(
                    policy: .capacity(factor: 0.8, minimum: 1, order: .position, evaluation: 1.5), bank: .padded,
                    losses: RouterLosses(balance: 0.02), dropout: 0.3)), checkpointing: true),
        TrainingCase(
            testDescription: "cosine, importance, capacity by the load, groups of two",
            model: decoder(
                moe(
                    router: RouterConfiguration(
                        renormalizes: true, cosine: CosineConfiguration(width: 12, temperature: 0.3)),
                    policy: .capacity(factor: -0.8, minimum: 1, order: .importance),
                    losses: RouterLosses(balance: 0.02, z: 0.01))), routingGroup: 2),
        TrainingCase(
            testDescription: "groups of experts with a selection bias",
            model: decoder(
                moe(
                    router: RouterConfiguration(
                        scoring: .sigmoid, renormalizes: true, biasRate: 0.05,
                        groupLimit: GroupLimit(groups: 2, chosen: 1, score: .bestTwo)),
                    losses: RouterLosses(balance: 0.02)))),
        TrainingCase(
            testDescription: "shortcut after attention, gated shared expert",
            model: shortcut(
                moe(
                    router: RouterConfiguration(scoring: .topKThenSoftmax, jitter: 0.05),
                    losses: RouterLosses(balance: 0.02), sharedWidth: 24, choices: 1),
                ShortcutConfiguration(), .gate)),
        TrainingCase(
            testDescription: "dual shortcut, one set of experts for two layers, capacity, checkpointed",
            model: shortcut(
                moe(
                    router: RouterConfiguration(gumbel: true),
                    policy: .capacity(factor: 0.9, minimum: 1, order: .random), losses: RouterLosses(balance: 0.02),
                    choices: 1),
                ShortcutConfiguration(position: .input, isDual: true)), checkpointing: true),
        TrainingCase(
            testDescription: "two levels",
            model: decoder(
                moe(
                    router: RouterConfiguration(nodes: 2), losses: RouterLosses(balance: 0.02, z: 0.01), choices: 1))),
        TrainingCase(
            testDescription: "annealed from all experts",
            model: decoder(
                moe(
                    router: RouterConfiguration(
                        annealing: DenseToSparse(start: 2, end: 0.5, steps: 100, threshold: 0.1)),
                    losses: RouterLosses(balance: 0.02, z: 0.01), choices: 4))),
    ]

    /// The balance loss over all layers at once, which is formed anew for each micro-batch.
    static let pooled = TrainingCase(
        testDescription: "pooled balance loss, checkpointed",
        model: decoder(
            moe(router: RouterConfiguration(renormalizes: true), losses: RouterLosses(balance: 0.02, scope: .pooled)),
            queryKeyNorm: .projection), checkpointing: true)

    static func moe(
        activation: Activation = .swiglu, router: RouterConfiguration = RouterConfiguration(),
        policy: TokenPolicy = .dropless, bank: ExpertBankKind = .grouped, losses: RouterLosses, sharedWidth: Int = 0,
        isResidual: Bool = false, choices: Int = 2, dropout: Float = 0
    ) -> MoEConfiguration {
        MoEConfiguration(
            experts: 4, choices: choices, width: 24, activation: activation, router: router, policy: policy, bank: bank,
            losses: losses, sharedWidth: sharedWidth, isResidual: isResidual, dropout: dropout)
    }

    /// Two pairs of a dense layer and a mixture; those of a dual shortcut share their experts.
    static func shortcut(
        _ moe: MoEConfiguration, _ shortcut: ShortcutConfiguration, _ combination: SharedCombination = .sum
    ) -> ModelConfiguration {
        var first = moe
        (first.shortcut, first.sharedCombination) = (shortcut, combination)
        var second = first
        second.parametersOf = shortcut.isDual ? 1 : nil
        var model = decoder(moe)
        model.feedForward = [.dense(width: 40), .moe(first), .dense(width: 40), .moe(second)]
        return model
    }

    static func decoder(
        _ moe: MoEConfiguration, keyValueHeads: Int = 2, norm: ModelConfiguration.Norm = .rms,
        position: ModelConfiguration.Position = .rotary(theta: 10_000),
        queryKeyNorm: ModelConfiguration.QueryKeyNorm = .none, isTied: Bool = false
    ) -> ModelConfiguration {
        ModelConfiguration(
            vocabulary: 40, width: 32, heads: 2, keyValueHeads: keyValueHeads, maximumPositions: 16, norm: norm,
            position: position, queryKeyNorm: queryKeyNorm, attentionBias: norm == .layer, activation: moe.activation,
            feedForward: [.moe(moe), .dense(width: 40), .moe(moe)], tiedEmbeddings: isTied, initialDeviation: 0.1)
    }
}

/// A model, its optimizer and its step, without a run's files.
struct Trainer {
    let backend: CPUBackend
    let model: Transformer
    let optimizer: AdamW
    let step: TrainStep
    let sequenceLength = 16

    init(
        _ model: ModelConfiguration, _ training: TrainingConfiguration, beta1: Float = 0.9, weightsSeed: UInt64 = 1,
        threads: Int = 2, router: Transformer.RouterFactory? = nil
    ) throws {
        backend = CPUBackend(threadCount: threads)
        self.model = try Transformer(
            model, backend: backend, precision: training.precision, isTrained: true, router: router)
        try self.model.store.initialize(seed: weightsSeed, backend: backend)
        optimizer = try AdamW(
            self.model.store, configuration: AdamW.Configuration(beta1: beta1), seed: 9, backend: backend)
        step = TrainStep(
            model: self.model, optimizer: optimizer, backend: backend, configuration: training, seed: 9)
    }

    init(_ training: TrainingCase, _ precision: Precision, weightsSeed: UInt64 = 1) throws {
        try self.init(training.model, training.training(precision), weightsSeed: weightsSeed)
    }

    /// Takes steps on batches that are a function of the step.
    @discardableResult
    func train(_ steps: ClosedRange<Int>, learningRate: Double = 0.01) throws -> [TrainStep.Result] {
        try steps.map { try step(step: $0, batch: batch($0), learningRate: learningRate) }
    }

    /// Random sequences in which a few targets are to be ignored.
    func batch(_ step: Int) -> TokenBatch {
        var generator = SeededGenerator(seed: UInt64(step))
        let count = self.step.configuration.batch * sequenceLength
        let tokens = (0...count).map { _ in Int32.random(in: 0..<40, using: &generator) }
        let targets = tokens.dropFirst().enumerated().map { $0.offset % 11 == 5 ? -100 : $0.element }
        let inputs = tokens.dropLast().map { model.configuration.patches == nil ? $0 : 6 * $0 }
        return TokenBatch(inputs: inputs, targets: targets)
    }

    /// Every tensor that training changes, by name: weights, moments and masters.
    var tensors: [(name: String, tensor: Tensor)] {
        get throws {
            let weights = try model.store.parameters.map {
                ("weights of \($0.name)", try $0.acquire(on: backend.stream))
            }
            return weights + optimizer.namedStates().map { ($0.name, $0.tensor) }
        }
    }

    func state(step: Int) -> TrainingState {
        TrainingState(step: step, dataChecksum: 1, settings: ["seed": "9"])
    }
}
