import ApusExperts
import ApusKernels

/// Models with names: the papers' own sizes, and current models by their public configurations.
///
/// Feed-forward layers of Apus have no biases, so models whose code has them come out smaller by a tenth of a percent.
extension ModelConfiguration {
    /// The names that ``preset(named:)`` knows, in groups.
    ///
    /// TED models exist for any number of experts, `ted-6.7b-48` too; the list has powers of two.
    public static var presetNames: [String] { Preset.all.map(\.name) + Preset.tedNames }

    /// The model of this name.
    ///
    /// - Throws: `unknownPreset`, or `impossible` for a TED model of an impossible number of experts.
    public static func preset(named name: String) throws(ModelConfigurationError) -> ModelConfiguration {
        if let preset = Preset.all.first(where: { $0.name == name }) { return preset.make() }
        if let model = Preset.ted(name) {
            try model.checkSizes()
            return model
        }
        throw .unknownPreset(name: name, nearest: nearestName(to: name, among: presetNames))
    }
}

struct Preset: Sendable {
    let name: String
    let make: @Sendable () -> ModelConfiguration

    init(_ name: String, _ make: @escaping @Sendable () -> ModelConfiguration) {
        self.name = name
        self.make = make
    }

    static let all = own + current + deepSeek + megaBlocks + deepSpeed + scMoE + dense
}

// MARK: Small models of Apus' own

extension Preset {
    /// V of models that read bytes: 256 of them, and the end of a document.
    private static let byteVocabulary = 257

    static let own = [
        /// The smallest model with everything in it: for tests.
        Preset("tiny") {
            ModelConfiguration(
                vocabulary: byteVocabulary, width: 32, heads: 4, keyValueHeads: 2, maximumPositions: 64,
                feedForward: [.dense(width: 64), .moe(MoEConfiguration(experts: 4, choices: 2, width: 32))])
        },
        /// The model of `Recipes/quickstart.yaml`, which reads bytes: 7.2 M parameters, 2.5 M of them active.
        Preset("quickstart") {
            let moe = MoEConfiguration(
                experts: 8, choices: 2, width: 256, router: RouterConfiguration(renormalizes: true),
                losses: RouterLosses(balance: 0.01, z: 0.001))
            return ModelConfiguration(
                vocabulary: byteVocabulary, width: 256, heads: 4, keyValueHeads: 2, maximumPositions: 256,
                feedForward: Array(repeating: .moe(moe), count: 4))
        },
        /// The model of `Recipes/quickstart-dense.yaml`: as many active parameters as `quickstart`, routers aside.
        Preset("quickstart-dense") {
            ModelConfiguration(
                vocabulary: byteVocabulary, width: 256, heads: 4, keyValueHeads: 2, maximumPositions: 256,
                feedForward: Array(repeating: .dense(width: 512), count: 4))
        },
        /// The model that CPU training is measured with: 15.7 M parameters, routed as Mixtral.
        Preset("bench") {
            let moe = MoEConfiguration(
                experts: 8, choices: 2, width: 512, router: RouterConfiguration(renormalizes: true),
                losses: RouterLosses(balance: 0.01, scope: .pooled))
            return ModelConfiguration(
                vocabulary: 4096, width: 256, heads: 4, maximumPositions: 256,
                feedForward: Array(repeating: .moe(moe), count: 4))
        },
    ]
}

// MARK: Current models

extension Preset {
    static let current = [
        /// Mixtral 8x7B (Jiang et al. 2024, section 2; its public configuration).
        Preset("mixtral-8x7b") {
            let moe = MoEConfiguration(
                experts: 8, choices: 2, width: 14_336, router: RouterConfiguration(renormalizes: true),
                losses: RouterLosses(balance: 0.02, scope: .pooled))
            return ModelConfiguration(
                vocabulary: 32_000, width: 4096, heads: 32, keyValueHeads: 8, maximumPositions: 32_768,
                position: .rotary(theta: 1_000_000), feedForward: Array(repeating: .moe(moe), count: 32))
        },
        /// OLMoE-1B-7B (Muennighoff et al. 2024, section 2; its public configuration).
        Preset("olmoe-1b-7b") { olmoe(layers: 16, width: 1024) },
        /// Half as many layers of twice as wide experts as OLMoE-1B-7B: fits a training step on one 80 GB GPU.
        Preset("olmoe-8-layers") { olmoe(layers: 8, width: 2048) },
        /// Qwen3-30B-A3B (Qwen3 technical report 2025, section 2; its public configuration).
        Preset("qwen3-30b-a3b") {
            let moe = MoEConfiguration(
                experts: 128, choices: 8, width: 768, router: RouterConfiguration(renormalizes: true),
                losses: RouterLosses(balance: 0.001, scope: .pooled))
            return ModelConfiguration(
                vocabulary: 151_936, width: 2048, heads: 32, keyValueHeads: 4, headWidth: 128,
                maximumPositions: 40_960, normEpsilon: 1e-6, position: .rotary(theta: 1_000_000), queryKeyNorm: .head,
                feedForward: Array(repeating: .moe(moe), count: 48))
        },
    ]

    private static func olmoe(layers: Int, width: Int) -> ModelConfiguration {
        let moe = MoEConfiguration(
            experts: 64, choices: 8, width: width, losses: RouterLosses(balance: 0.01, scope: .pooled))
        return ModelConfiguration(
            vocabulary: 50_304, width: 2048, heads: 16, maximumPositions: 4096, queryKeyNorm: .projection,
            feedForward: Array(repeating: .moe(moe), count: layers))
    }
}

// MARK: Models in the manner of GPT: LayerNorm, learned positions, biases in attention, GELU 4D wide, tied head

extension Preset {
    /// A GPT decoder whose feed-forward layers `part` gives.
    static func gpt(
        layers: Int, width: Int, heads: Int, sequence: Int, vocabulary: Int = 50_304, deviation: Float = 0.02,
        part: (Int) -> ModelConfiguration.FeedForward
    ) -> ModelConfiguration {
        ModelConfiguration(
            vocabulary: vocabulary, width: width, heads: heads, maximumPositions: sequence, norm: .layer,
            position: .learned, attentionBias: true, activation: .geluTanh, feedForward: (0..<layers).map(part),
            tiedEmbeddings: true, initialDeviation: deviation)
    }

    /// Mixtures in every second layer, the rest dense; `experts` by the mixture's rank among `layers / 2`.
    static func alternating(
        _ width: Int, _ experts: @escaping (Int) -> Int, choices: Int = 1, capacity: Float, isResidual: Bool = false
    ) -> (Int) -> ModelConfiguration.FeedForward {
        { layer in
            guard layer % 2 == 1 else { return .dense(width: 4 * width) }
            return .moe(
                MoEConfiguration(
                    experts: experts(layer / 2), choices: choices, width: 4 * width, activation: .geluTanh,
                    policy: .capacity(factor: capacity, minimum: 4, order: .position), bank: .padded,
                    losses: RouterLosses(balance: 0.01), isResidual: isResidual))
        }
    }

    /// The models of MegaBlocks.
    ///
    /// Gale et al. 2023, section 6: 64 experts, top-1, in every layer, dropless.
    ///
    /// The balance loss of 0.1 is an average over layers, hence a layer's share of it here.
    static let megaBlocks = [
        Preset("megablocks-moe-xs") { megaBlocks(layers: 6, width: 512) },
        Preset("megablocks-moe-small") { megaBlocks(layers: 12, width: 768) },
        Preset("megablocks-moe-medium") { megaBlocks(layers: 24, width: 1024) },
    ]

    private static func megaBlocks(layers: Int, width: Int) -> ModelConfiguration {
        gpt(layers: layers, width: width, heads: width / 64, sequence: 1024, vocabulary: 51_200) { _ in
            .moe(
                MoEConfiguration(
                    experts: 64, choices: 1, width: 4 * width, activation: .geluTanh,
                    losses: RouterLosses(balance: 0.1 / Float(layers))))
        }
    }

    /// The models of DeepSpeed-MoE.
    ///
    /// Rajbhandari et al. 2022: its training recipe of section 3 (top-1 in every second layer, capacity
    /// 1.0, at least 4), PR-MoE of section 4.1 (residual, twice the experts in the last two mixtures), the students of
    /// section 4.2 (21 layers), and the larger models of section 5's table. The order of dropping is not stated.
    static let deepSpeed = [
        Preset("deepspeed-moe-350m-128") { deepSpeed(layers: 24, width: 1024, heads: 16) { _ in 128 } },
        Preset("deepspeed-moe-1.3b-128") { deepSpeed(layers: 24, width: 2048, heads: 16) { _ in 128 } },
        Preset("deepspeed-moe-2.4b-128") { deepSpeed(layers: 16, width: 3584, heads: 28) { _ in 128 } },
        Preset("deepspeed-moe-8b-128") { deepSpeed(layers: 40, width: 4096, heads: 32) { _ in 128 } },
        Preset("deepspeed-moe-24b-128") { deepSpeed(layers: 30, width: 8192, heads: 64) { _ in 128 } },
        Preset("deepspeed-moe-47b-128") { deepSpeed(layers: 58, width: 8192, heads: 64) { _ in 128 } },
        Preset("deepspeed-pr-moe-350m") { pyramid(layers: 24, width: 1024, experts: 32) },
        Preset("deepspeed-pr-moe-1.3b") { pyramid(layers: 24, width: 2048, experts: 64) },
        Preset("deepspeed-mos-350m") { pyramid(layers: 21, width: 1024, experts: 32) },
        Preset("deepspeed-mos-1.3b") { pyramid(layers: 21, width: 2048, experts: 64) },
    ]

    private static func pyramid(layers: Int, width: Int, experts: Int) -> ModelConfiguration {
        deepSpeed(layers: layers, width: width, heads: 16, isResidual: true) { rank in
            rank < layers / 2 - 2 ? experts : 2 * experts
        }
    }

    private static func deepSpeed(
        layers: Int, width: Int, heads: Int, isResidual: Bool = false, experts: @escaping (Int) -> Int
    ) -> ModelConfiguration {
        gpt(
            layers: layers, width: width, heads: heads, sequence: 2048, deviation: 0.014,
            part: alternating(width, experts, capacity: 1, isResidual: isResidual))
    }

    /// Dense models that DeepSpeed-MoE and DeepSpeed-TED put experts into, GPT-3's sizes.
    private static let bases = [
        (name: "350m", layers: 24, width: 1024, heads: 16), (name: "1.3b", layers: 24, width: 2048, heads: 16),
        (name: "2.7b", layers: 32, width: 2560, heads: 32), (name: "6.7b", layers: 32, width: 4096, heads: 32),
        (name: "13b", layers: 40, width: 5120, heads: 40),
    ]

    static let dense =
        bases.map { base in
            Preset("gpt-\(base.name)") {
                gpt(layers: base.layers, width: base.width, heads: base.heads, sequence: 2048) { _ in
                    .dense(width: 4 * base.width)
                }
            }
        }
        + [("xs", 6, 512), ("small", 12, 768), ("medium", 24, 1024), ("large", 24, 1536), ("xl", 24, 2048)].map {
            size in
            Preset("megablocks-dense-\(size.0)") {
                gpt(layers: size.1, width: size.2, heads: size.2 / 64, sequence: 1024, vocabulary: 51_200) { _ in
                    .dense(width: 4 * size.2)
                }
            }
        }

    static let tedNames = bases.dropFirst().flatMap { base in
        [4, 8, 16, 32, 64, 128].map { "ted-\(base.name)-\($0)" }
    }

    /// The models of DeepSpeed-TED, `ted-<base>-<experts>`.
    ///
    /// Singh et al. 2023: top-1 in every second layer of a base, the number of experts varied. The bases are those of
    /// DeepSpeed's example scripts.
    static func ted(_ name: String) -> ModelConfiguration? {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0] == "ted", let experts = Int(parts[2]),
            let base = bases.dropFirst().first(where: { $0.name == parts[1] })
        else { return nil }
        return gpt(
            layers: base.layers, width: base.width, heads: base.heads, sequence: 2048,
            part: alternating(base.width, { _ in experts }, capacity: 1))
    }

    /// The models that ScMoE is compared with.
    ///
    /// Cai et al. 2024, experiments: sequential top-2, mixtures in every second layer (LLaMA2-MoE: in every one),
    /// capacity 2.0. ScMoE's own shortcut is another kind of block. LLaMA2-MoE's expert width and context are not
    /// stated; 5376 gives its 6.7 B parameters.
    static let scMoE = [
        Preset("scmoe-gpt2-small") {
            gpt(
                layers: 12, width: 768, heads: 12, sequence: 1024,
                part: alternating(768, { _ in 8 }, choices: 2, capacity: 2))
        },
        Preset("scmoe-gpt2-medium") {
            gpt(
                layers: 24, width: 1024, heads: 16, sequence: 2048,
                part: alternating(1024, { _ in 16 }, choices: 2, capacity: 2))
        },
        Preset("scmoe-gpt3-xl") {
            gpt(
                layers: 24, width: 2048, heads: 32, sequence: 2048,
                part: alternating(2048, { _ in 8 }, choices: 2, capacity: 2))
        },
        Preset("scmoe-llama2") {
            let moe = MoEConfiguration(
                experts: 8, choices: 2, width: 5376, policy: .capacity(factor: 2, minimum: 4, order: .position),
                bank: .padded, losses: RouterLosses(balance: 0.01))
            return ModelConfiguration(
                vocabulary: 32_000, width: 2048, heads: 16, keyValueHeads: 4, maximumPositions: 2048,
                feedForward: Array(repeating: .moe(moe), count: 24))
        },
    ]
}
