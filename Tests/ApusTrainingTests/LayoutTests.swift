import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTestSupport
import Foundation
import Testing

@testable import ApusTraining

/// Every parameter's gradient and weights on many layouts, against one rank.
struct LayoutTests {
    // MARK: Models

    /// Four heads, four experts of which two are chosen, and a dense layer between two mixtures.
    private static func decoder(
        _ moe: MoEConfiguration, keyValueHeads: Int = 4, norm: ModelConfiguration.Norm = .rms,
        position: ModelConfiguration.Position = .rotary(theta: 10_000),
        queryKeyNorm: ModelConfiguration.QueryKeyNorm = .none, isTied: Bool = false
    ) -> ModelConfiguration {
        ModelConfiguration(
            vocabulary: 40, width: 32, heads: 4, keyValueHeads: keyValueHeads, maximumPositions: 16, norm: norm,
            position: position, queryKeyNorm: queryKeyNorm, attentionBias: norm == .layer, activation: moe.activation,
            feedForward: [.moe(moe), .dense(width: 40), .moe(moe)], tiedEmbeddings: isTied, initialDeviation: 0.1)
    }

    private static func moe(_ change: (inout MoEConfiguration) -> Void = { _ in }) -> MoEConfiguration {
        var moe = TrainingCase.moe(losses: RouterLosses(balance: 0.02, z: 0.01))
        change(&moe)
        return moe
    }

    private static let dropless = decoder(moe(), queryKeyNorm: .head)
    /// Without norms of eight numbers, whose gradients average the rounding of `bf16` over too few.
    private static let plain = decoder(moe())
    private static let projectionNorm = decoder(moe(), queryKeyNorm: .projection)
    private static let tied = decoder(moe { $0.sharedWidth = 12 }, isTied: true)
    private static let noisy = decoder(moe { $0.router = RouterConfiguration(jitter: 0.05, gumbel: true) })
    /// One choice of four experts and few tokens: on some ranks an expert gets none.
    private static let switching = decoder(moe { $0.choices = 1 })
    private static let randomSelection = decoder(
        moe { $0.policy = .capacity(factor: 0.7, minimum: 1, order: .random) })
    private static let padded = decoder(
        moe {
            $0.policy = .capacity(factor: 1, minimum: 2, order: .probability)
            $0.bank = .padded
        })
    private static let biased = decoder(
        moe {
            $0.router = RouterConfiguration(scoring: .sigmoid, renormalizes: true, weightScale: 1.5, biasRate: 0.05)
        }, queryKeyNorm: .head)
    private static let residual = decoder(
        moe {
            $0.activation = .geluTanh
            $0.isResidual = true
        }, norm: .layer, position: .learned)
    /// As DeepSeek-V3, queries compressed too.
    private static let latent: ModelConfiguration = {
        var model = decoder(
            moe {
                $0.router = RouterConfiguration(
                    scoring: .sigmoid, renormalizes: true, weightScale: 1.5, biasRate: 0.05,
                    groupLimit: GroupLimit(groups: 2, chosen: 1, score: .bestTwo))
                $0.sharedWidth = 12
            })
        model.latent = LatentConfiguration(
            queryRank: 12, keyValueRank: 10, plainWidth: 6, rotaryWidth: 4, valueWidth: 8)
        model.headWidth = 10
        return model
    }()
    private static let hybrid: ModelConfiguration = {
        var model = decoder(moe())
        model.convolution = ConvolutionConfiguration(layers: [0, 2], width: 3)
        return model
    }()
    private static let pooled = decoder(moe { $0.losses = RouterLosses(balance: 0.02, scope: .pooled) })

    private static let dropping = decoder(
        moe {
            $0.choices = 1
            $0.dropout = 0.3
            $0.policy = .capacity(factor: 1, minimum: 2, order: .position, evaluation: 2)
            $0.bank = .padded
        })
    private static let droppingDropless = decoder(moe { $0.dropout = 0.3 })
    private static let grouped = decoder(
        moe {
            $0.router = RouterConfiguration(
                scoring: .sigmoid, renormalizes: true, biasRate: 0.05,
                groupLimit: GroupLimit(groups: 2, chosen: 1, score: .bestTwo))
        })
    private static let cosine = decoder(
        moe {
            $0.router = RouterConfiguration(
                renormalizes: true, cosine: CosineConfiguration(width: 12, temperature: 0.3))
            $0.policy = .capacity(factor: -1, minimum: 1, order: .importance)
            $0.bank = .padded
        })
    private static let twoLevels = decoder(
        moe {
            $0.choices = 1
            $0.router = RouterConfiguration(nodes: 2)
        })
    private static let annealed = decoder(
        moe {
            $0.choices = 4
            $0.router = RouterConfiguration(annealing: DenseToSparse(start: 2, end: 0.5, steps: 2, threshold: 0.1))
        })

    /// An image has 15 patches of one pixel.
    private static let images: ModelConfiguration = {
        var model = decoder(
            moe {
                $0.activation = .gelu
                $0.policy = .capacity(factor: 1, minimum: 2, order: .importance)
                $0.bank = .padded
            }, norm: .layer, position: .learned)
        model.patches = PatchConfiguration(height: 15, width: 1, size: 1)
        return model
    }()

    // MARK: Layouts

    private static let dense: [LayoutCase] = [
        LayoutCase(model: dropless, data: 1),
        LayoutCase(model: dropless, data: 2, zero: .none),
        LayoutCase(model: dropless, data: 2),
        LayoutCase(model: tied, data: 4, zero: .gradients, microBatch: 1, words: "tied, accumulation"),
        LayoutCase(model: noisy, data: 4, microBatch: 2, words: "jitter and noise"),
        LayoutCase(model: dropless, tensor: 2, data: 1),
        LayoutCase(model: projectionNorm, tensor: 4, data: 1, words: "norm over the projection"),
        LayoutCase(model: tied, tensor: 2, data: 2, zero: .gradients, sequenceParallel: true, words: "tied, sequence"),
        LayoutCase(model: residual, tensor: 2, data: 2, sequenceParallel: true, words: "LayerNorm, residual, sequence"),
        LayoutCase(model: pooled, data: 4, words: "pooled"),
    ]

    private static let experts: [LayoutCase] = [
        LayoutCase(model: dropless, expert: .uniform(2), data: 2),
        LayoutCase(model: switching, expert: .uniform(4), data: 4, words: "one choice"),
        LayoutCase(
            model: dropless, expert: .uniform(2), data: 4, zero: .gradients, microBatch: 1, words: "accumulation"),
        LayoutCase(model: dropless, expert: .uniform(2), data: 4, order: .dataBeforeExpert, zero: .none),
        LayoutCase(model: dropless, expert: .perLayer([4, 1, 2]), data: 4, words: "degrees of layers"),
        LayoutCase(
            model: randomSelection, expert: .uniform(2), data: 2, microBatch: 2, routingGroup: 2,
            words: "random token selection in groups of two"),
        LayoutCase(model: padded, expert: .uniform(4), data: 4, words: "padded by probability"),
        LayoutCase(model: biased, expert: .uniform(2), data: 4, microBatch: 1, words: "selection bias, accumulation"),
        LayoutCase(model: residual, expert: .uniform(4), data: 4, words: "residual"),
        LayoutCase(model: dropless, expert: .uniform(4), data: 8, ranksPerNode: 2, words: "by way of nodes"),
        LayoutCase(model: switching, expert: .uniform(8), data: 8, words: "experts in two slices"),
        LayoutCase(model: plain, expert: .uniform(2), data: 2, precision: .bf16),
    ]

    private static let both: [LayoutCase] = [
        LayoutCase(model: dropless, tensor: 2, expert: .uniform(2), data: 2),
        LayoutCase(
            model: dropless, tensor: 2, expert: .uniform(2), data: 2, dropsDuplicates: false, words: "duplicates"),
        LayoutCase(model: dropless, tensor: 2, expert: .uniform(2), data: 2, fuses: false, words: "not fused"),
        LayoutCase(model: tied, tensor: 2, expert: .uniform(2), data: 4, zero: .gradients, sequenceParallel: true),
        LayoutCase(model: dropless, tensor: 2, expert: .uniform(2), data: 2, checkpointing: true, words: "CAC"),
        LayoutCase(
            model: biased, tensor: 2, expert: .uniform(4), data: 4, checkpointing: true, keeps: false,
            words: "checkpointing without CAC, selection bias"),
        LayoutCase(
            model: dropless, tensor: 2, expert: .uniform(2), data: 4, sequenceParallel: true, checkpointing: true,
            words: "sequence, CAC"),
        LayoutCase(
            model: dropless, tensor: 2, expert: .uniform(4), data: 4, expertTensor: false, words: "whole experts"),
        LayoutCase(
            model: switching, tensor: 2, expert: .uniform(2), data: 2, expertTensor: false,
            words: "whole experts, one choice"),
        LayoutCase(model: dropless, tensor: 2, data: 2, expertTensor: false, words: "whole experts, undivided"),
        LayoutCase(model: padded, tensor: 2, expert: .uniform(2), data: 2, words: "padded"),
        LayoutCase(
            model: padded, tensor: 2, expert: .uniform(2), data: 2, dropsDuplicates: false, words: "padded, duplicates"),
        LayoutCase(model: residual, tensor: 2, expert: .uniform(2), data: 2, words: "residual"),
        LayoutCase(model: pooled, tensor: 2, expert: .uniform(2), data: 2, words: "pooled"),
        LayoutCase(model: dropless, tensor: 4, expert: .uniform(4), data: 4),
        LayoutCase(
            model: switching, tensor: 4, expert: .uniform(2), data: 4, zero: .gradients, checkpointing: true,
            microBatch: 1, words: "one choice, CAC, accumulation"),
        LayoutCase(model: dropless, tensor: 2, expert: .uniform(8), data: 8, words: "experts in two slices"),
        LayoutCase(model: plain, tensor: 2, expert: .uniform(2), data: 2, precision: .bf16),
    ]

    private static let routers: [LayoutCase] = [
        LayoutCase(model: dropping, expert: .uniform(2), data: 4, microBatch: 1, words: "Switch, accumulation"),
        LayoutCase(model: dropping, tensor: 2, expert: .uniform(2), data: 2, words: "Switch"),
        LayoutCase(
            model: dropping, tensor: 2, expert: .uniform(2), data: 2, dropsDuplicates: false,
            words: "Switch, duplicates"),
        LayoutCase(model: droppingDropless, tensor: 2, data: 2, words: "expert dropout"),
        LayoutCase(
            model: droppingDropless, tensor: 2, expert: .uniform(2), data: 2, checkpointing: true,
            words: "expert dropout, CAC"),
        LayoutCase(
            model: droppingDropless, tensor: 2, expert: .uniform(4), data: 4, expertTensor: false,
            words: "expert dropout, whole experts"),
        LayoutCase(model: droppingDropless, expert: .uniform(8), data: 8, words: "expert dropout, slices"),
        LayoutCase(
            model: droppingDropless, expert: .uniform(4), data: 8, ranksPerNode: 2, words: "expert dropout, nodes"),
        LayoutCase(model: grouped, tensor: 2, expert: .uniform(2), data: 2, words: "groups"),
        LayoutCase(model: cosine, expert: .uniform(4), data: 4, words: "cosine, capacity by the load"),
        LayoutCase(model: cosine, tensor: 2, expert: .uniform(2), data: 2, words: "cosine, capacity by the load"),
        LayoutCase(model: twoLevels, expert: .uniform(4), data: 4, ranksPerNode: 2, words: "two levels"),
        LayoutCase(model: twoLevels, tensor: 2, expert: .uniform(2), data: 2, words: "two levels"),
        LayoutCase(model: latent, tensor: 4, data: 1, words: "latent attention"),
        LayoutCase(
            model: latent, tensor: 2, expert: .uniform(2), data: 2, sequenceParallel: true, checkpointing: true,
            words: "latent attention, sequence, CAC"),
        LayoutCase(model: images, expert: .uniform(2), data: 4, microBatch: 2, words: "images"),
        LayoutCase(model: images, tensor: 2, expert: .uniform(2), data: 2, words: "images"),
        LayoutCase(model: hybrid, tensor: 4, data: 1, words: "convolutions"),
        LayoutCase(
            model: hybrid, tensor: 2, expert: .uniform(2), data: 2, sequenceParallel: true, checkpointing: true,
            words: "convolutions, sequence, CAC"),
        LayoutCase(model: annealed, data: 4, microBatch: 2, words: "annealed"),
        LayoutCase(model: annealed, tensor: 2, expert: .uniform(2), data: 4, words: "annealed"),
    ]

    private static func shortcut(
        _ shortcut: ShortcutConfiguration, _ change: (inout MoEConfiguration) -> Void = { _ in }
    ) -> ModelConfiguration {
        var moe = moe { $0.choices = 1 }
        if !shortcut.isDual { (moe.sharedWidth, moe.sharedCombination) = (24, .gate) }
        change(&moe)
        var model = TrainingCase.shortcut(moe, shortcut, moe.sharedCombination)
        (model.heads, model.keyValueHeads, model.headWidth) = (4, 4, 8)
        return model
    }

    private static let afterAttention = shortcut(ShortcutConfiguration())
    private static let fromInput = shortcut(ShortcutConfiguration(position: .input)) {
        ($0.choices, $0.sharedCombination) = (2, .softmax)
    }
    private static let fromOutput = shortcut(ShortcutConfiguration(position: .output)) {
        $0.policy = .capacity(factor: 1, minimum: 2, order: .probability)
        $0.bank = .padded
    }
    private static let dual = shortcut(ShortcutConfiguration(isDual: true))
    private static let dualDropping = shortcut(ShortcutConfiguration(position: .input, isDual: true)) {
        $0.dropout = 0.3
        $0.router = RouterConfiguration(jitter: 0.05, gumbel: true)
        $0.policy = .capacity(factor: 0.8, minimum: 1, order: .random)
    }

    /// Experts that read an earlier state (ScMoE).
    private static let shortcuts: [LayoutCase] = [
        LayoutCase(model: afterAttention, expert: .uniform(2), data: 2, words: "ScMoE"),
        LayoutCase(
            model: afterAttention, tensor: 2, expert: .uniform(2), data: 4, zero: .gradients, microBatch: 1,
            words: "ScMoE, accumulation"),
        LayoutCase(
            model: afterAttention, tensor: 2, expert: .uniform(2), data: 2, sequenceParallel: true,
            words: "ScMoE, sequence"),
        LayoutCase(
            model: fromInput, tensor: 2, expert: .uniform(2), data: 2, checkpointing: true,
            words: "ScMoE from the input, CAC"),
        LayoutCase(
            model: fromInput, tensor: 2, expert: .uniform(4), data: 4, sequenceParallel: true,
            words: "ScMoE from the input, sequence"),
        LayoutCase(
            model: fromInput, expert: .uniform(4), data: 4, ranksPerNode: 2, words: "ScMoE from the input, nodes"),
        LayoutCase(model: fromOutput, expert: .uniform(4), data: 4, words: "ScMoE from the output, padded"),
        LayoutCase(
            model: fromOutput, tensor: 2, expert: .uniform(4), data: 4, expertTensor: false,
            words: "ScMoE from the output, padded, whole experts"),
        LayoutCase(model: dual, expert: .uniform(2), data: 4, microBatch: 1, words: "DGMoE-Share, accumulation"),
        LayoutCase(model: dual, expert: .uniform(8), data: 8, words: "DGMoE-Share, experts in two slices"),
        LayoutCase(
            model: dualDropping, tensor: 2, expert: .uniform(2), data: 2, checkpointing: true,
            words: "DGMoE-Share with draws, CAC"),
        LayoutCase(
            model: dualDropping, tensor: 2, expert: .uniform(2), data: 2, sequenceParallel: true,
            words: "DGMoE-Share with draws, sequence"),
    ]

    @Test func `layers with one set of experts are divided alike`() throws {
        let recipe = LayoutCase(model: Self.dual, expert: .perLayer([1, 2, 1, 4]), data: 4).recipe
        let error = try #require(throws: LayoutError.self) { try recipe.layout(ranks: 4) }
        #expect(error.key == "layout.expert" && "\(error)".contains("use 2 for both"), "\(error)")
    }

    @Test(arguments: dense + experts + both + routers + shortcuts)
    func `a layout computes what one rank computes`(_ layout: LayoutCase) throws {
        let found = try layout.verify()
        let agrees = found.agrees
        #expect(agrees, "\(found.summary)")
        let (compared, steps) = (found.choices.compared, found.losses.count)
        #expect(compared > 0 && steps == 6)
    }

    /// Every combination of degrees up to sixteen ranks, every ZeRO stage, experts divided by tensor ranks or not.
    private static let every: [LayoutCase] = [1, 2, 4].flatMap { tensor in
        [1, 2, 4, 8, 16].filter { tensor * $0 <= 16 }.flatMap { data in
            [1, 2, 4, 8].filter { data.isMultiple(of: $0) }.flatMap { expert in
                (tensor > 1 ? [true, false] : [true]).flatMap { expertTensor in
                    ZeROStage.allCases.map { zero in
                        LayoutCase(
                            model: dropless, tensor: tensor, expert: .uniform(expert), data: data,
                            expertTensor: expertTensor, zero: zero, batch: 16, microBatch: 16)
                    }
                }
            }
        }
    }

    @Test(
        .enabled(if: ProcessInfo.processInfo.environment["APUS_SOAK"] == "1", "a part of `make soak`"), arguments: every
    )
    func `every layout computes what one rank computes`(_ layout: LayoutCase) throws {
        let found = try layout.verify()
        let agrees = found.agrees
        #expect(agrees, "\(found.summary)")
    }

    /// Ranks that a sequence's tokens do not divide over.
    @Test func `sequence parallelism over ranks that do not divide a sequence is refused`() throws {
        var recipe = LayoutCase(model: Self.dropless, tensor: 4, data: 1, sequenceParallel: true).recipe
        #expect(try recipe.layout(ranks: 4).tensor == 4)
        recipe.data.sequenceLength = 18
        let error = try #require(throws: LayoutError.self) { try recipe.layout(ranks: 4) }
        #expect(error.key == "layout.sequence_parallel")
        #expect("\(error)".contains("use data.sequence_length 20, or layout.sequence_parallel false"), "\(error)")
    }

    /// Exchanges of which one kind yields a thousandth too much.
    @Test(arguments: ["data.", "expert-data2.", "expert2.", "tensor."])
    func `a comparison finds a sum that is slightly wrong`(communicator: String) throws {
        let layout = LayoutCase(model: Self.dropless, tensor: 2, expert: .uniform(2), data: 4, zero: .none)
        let found = try layout.verify { world in
            BentCollective(world) { name, operation in
                if case .allGather = operation { return false }
                return name.hasPrefix(communicator)
            }
        }
        let agrees = found.agrees
        #expect(!agrees, "\(found.summary)")
        let isGradient = found.rows.contains { $0.gradient > found.tolerance.gradient }
        #expect(isGradient)
    }

    @Test func `a layout that nobody can have is refused with one that works`() throws {
        let layout = LayoutCase(model: Self.dropless, tensor: 8, data: 1)
        let error = try #require(throws: LayoutError.self) { _ = try layout.verify() }
        #expect(error.key == "layout.tensor" && error.nearest?.tensor == 4, "\(error)")
    }
}

extension LayoutFindings {
    /// The worst of it.
    fileprivate var summary: String {
        let worst = rows.prefix(5).map { row in
            "\(row.parameter.name): gradient \(row.gradient), descent \(row.descent), AdamW \(row.adamW)"
        }
        return (["losses \(lossDifference), \(choices.count) choices differ"] + worst).joined(separator: "\n")
    }
}
