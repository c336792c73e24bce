import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

/// Configurations that together have every kind of parameter.
struct TransformerCase: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let configuration: ModelConfiguration

    init(_ name: String, _ change: (inout ModelConfiguration, inout MoEConfiguration) -> Void) {
        var moe = MoEConfiguration(
            experts: 3, choices: 2, width: 10, losses: RouterLosses(balance: 0.05, z: 0.01, importance: 0.01))
        var model = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, keyValueHeads: 2, maximumPositions: 12, feedForward: [],
            initialDeviation: 0.2)
        change(&model, &moe)
        if model.feedForward.isEmpty { model.feedForward = [.moe(moe), .dense(width: 14), .moe(moe)] }
        testDescription = name
        configuration = model
    }

    static let all: [TransformerCase] = [
        TransformerCase("as it comes") { _, _ in },
        TransformerCase("dense alone") { model, _ in
            model.feedForward = [.dense(width: 14), .dense(width: 9), .dense(width: 6)]
        },
        TransformerCase("LayerNorm, learned positions, biases, GELU") { model, moe in
            (model.norm, model.position, model.attentionBias) = (.layer, .learned, true)
            (model.activation, moe.activation) = (.gelu, .geluTanh)
        },
        TransformerCase("tied, query and key norm over the projection, clip") { model, _ in
            (model.tiedEmbeddings, model.queryKeyNorm, model.attentionClip) = (true, .projection, 0.5)
        },
        TransformerCase("query and key norm by head, wide heads, window") { model, _ in
            (model.queryKeyNorm, model.headWidth, model.slidingWindow) = (.head, 6, 5)
        },
        TransformerCase("sigmoid with selection bias, shared expert, ReLU") { _, moe in
            moe.router = RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.01)
            (moe.sharedWidth, moe.activation) = (7, .relu)
        },
        TransformerCase("residual and shared expert, padded") { model, moe in
            (moe.isResidual, moe.sharedWidth, moe.bank) = (true, 5, .padded)
            moe.policy = .capacity(factor: 1, minimum: 1, order: .position)
            model.tiedEmbeddings = true
        },
        TransformerCase("block-sparse") { _, moe in (moe.bank, moe.blockSize) = (.blockSparse, 5) },
        TransformerCase("cosine router, expert dropout, small weights") { model, moe in
            moe.router = RouterConfiguration(cosine: CosineConfiguration(width: 6, temperature: 0.3))
            moe.dropout = 0.3
            model.initialScale = 0.1
        },
        TransformerCase("groups of experts, two levels, annealed") { model, moe in
            var (limited, annealed, levels) = (moe, moe, moe)
            (levels.experts, levels.choices, levels.router.nodes) = (4, 1, 2)
            (limited.experts, limited.router.groupLimit) = (4, GroupLimit(groups: 2, chosen: 1, score: .bestTwo))
            (annealed.choices, annealed.router.annealing) = (3, DenseToSparse(steps: 9))
            model.feedForward = [.moe(limited), .moe(levels), .moe(annealed)]
        },
        TransformerCase("shortcuts after attention and from the input, gated shared experts") { model, moe in
            (moe.sharedWidth, moe.sharedCombination) = (7, .gate)
            var (near, far) = (moe, moe)
            near.shortcut = ShortcutConfiguration(position: .attention)
            far.shortcut = ShortcutConfiguration(position: .input)
            model.feedForward = [.dense(width: 14), .moe(near), .moe(far)]
        },
        TransformerCase("shortcuts from the block's input, shared experts by softmax") { model, moe in
            (moe.sharedWidth, moe.sharedCombination) = (7, .softmax)
            moe.shortcut = ShortcutConfiguration(position: .output)
            model.feedForward = [.moe(moe), .moe(moe), .dense(width: 14)]
        },
        TransformerCase("dual shortcuts over one set of experts, capacity") { model, moe in
            (moe.choices, moe.shortcut) = (1, ShortcutConfiguration(isDual: true))
            moe.policy = .capacity(factor: 1, minimum: 1, order: .random)
            moe.router.jitter = 0.05
            var other = moe
            other.parametersOf = 1
            model.feedForward = [.dense(width: 14), .moe(moe), .moe(other)]
        },
        TransformerCase("latent attention, values narrower than keys") { model, moe in
            model.latent = LatentConfiguration(
                queryRank: 9, keyValueRank: 7, plainWidth: 4, rotaryWidth: 6, valueWidth: 5)
            (model.keyValueHeads, model.headWidth) = (4, 10)
            model.yarn = YarnConfiguration(factor: 3, originalPositions: 4, mscale: 0.5, mscaleAll: 0.8)
            moe.sharedWidth = 20
        },
        TransformerCase("latent attention, values wider than keys, small weights") { model, _ in
            model.latent = LatentConfiguration(
                keyValueRank: 7, plainWidth: 2, rotaryWidth: 4, valueWidth: 9, pairing: .halves)
            (model.keyValueHeads, model.headWidth, model.initialScale) = (4, 6, 0.1)
        },
        TransformerCase("an encoder of images of 11 patches") { model, moe in
            (model.norm, model.position, model.attentionBias) = (.layer, .learned, true)
            model.patches = PatchConfiguration(height: 11, width: 1, size: 1)
            moe.policy = .capacity(factor: 1, minimum: 1, order: .importance)
        },
        TransformerCase("convolutions in the first and last layer") { model, _ in
            model.convolution = ConvolutionConfiguration(layers: [0, 2], width: 3)
        },
        TransformerCase("pyramid of experts, one of them alone") { model, moe in
            var (few, many) = (moe, moe)
            (few.experts, few.choices, many.experts) = (1, 1, 5)
            model.feedForward = [.moe(few), .moe(moe), .moe(many)]
        },
    ]
}

/// A model with weights, and the means to run it.
struct TransformerFixture {
    let backend = CPUBackend(threadCount: 2)
    let model: Transformer

    init(_ configuration: ModelConfiguration, _ precision: Precision = .f32, isTrained: Bool = false) throws {
        model = try Transformer(configuration, backend: backend, precision: precision, isTrained: isTrained)
        try model.store.initialize(seed: 11, backend: backend)
    }

    /// Two sequences of 12 and 9 tokens.
    static let lengths = [12, 9]

    func tokens(_ seed: UInt64 = 1) throws -> Tensor {
        var generator = SeededGenerator(seed: seed)
        let ids = (0..<Self.lengths.reduce(0, +)).map { _ in
            Int.random(in: 0..<model.configuration.vocabulary, using: &generator)
        }
        return try backend.allocator.integers(ids)
    }

    func context(_ tape: Tape) throws -> MoEContext {
        let layout = try TokenLayout.sequences(Self.lengths, backend: backend)
        return MoEContext(forward: ForwardContext(tape: tape, layout: layout, trainingStep: 1, seed: 3))
    }

    func weights(_ name: String) throws -> Tensor {
        guard let parameter = model.store[name] else { throw NoSuchParameter(name: name) }
        return try parameter.acquire(on: backend.stream)
    }

    struct NoSuchParameter: Error { let name: String }
}
