import ApusExperts
import ApusKernels
import ApusTensor

extension HubFamily {
    /// Whether a model of this family can compute what `configuration` computes.
    public func canExpress(_ configuration: ModelConfiguration) -> Bool {
        Demand.all(of: configuration).allSatisfy { $0.families.contains(self) }
    }

    /// Fails on the first property that this family has no way to say.
    ///
    /// Only what decides the logits counts: noise and losses of the router are training's and stay behind
    /// (``leftBehind(_:)``).
    ///
    /// - Throws: `impossible` or `notExpressible`, which names the families that could.
    public func check(_ configuration: ModelConfiguration) throws(ModelConfigurationError) {
        try configuration.checkSizes()
        for demand in Demand.all(of: configuration) where !demand.families.contains(self) {
            throw .notExpressible(
                family: self, key: demand.key, found: demand.found, others: demand.families)
        }
    }

    /// Settings of training that a written `config.json` does not carry, as keys of Apus' own form.
    public func leftBehind(_ configuration: ModelConfiguration) -> [String] {
        var keys: Set<String> = []
        if configuration.initialScale != nil { keys.insert("initial_scale") }
        for case .moe(let moe) in configuration.feedForward {
            if moe.dropout > 0 { keys.insert("dropout") }
            if moe.router.jitter > 0 { keys.insert("router.jitter") }
            if moe.router.gumbel { keys.insert("router.gumbel") }
            if moe.losses.z > 0 { keys.insert("losses.z") }
            if moe.losses.importance > 0 { keys.insert("losses.importance") }
            let balances =
                isDeepSeek
                ? moe.losses.scope == .layer && moe.losses == configuration.mixtures.first?.losses
                : Self.balanceCoefficient(configuration) != 0
            if moe.losses.balance > 0, !balances { keys.insert("losses.balance") }
            if self == .deepseekV3, moe.router.biasRate != Self.deepSeekBiasRate { keys.insert("router.bias_rate") }
        }
        return keys.sorted()
    }

    /// The one coefficient of the pooled balance loss, or 0 when layers differ or balance for themselves.
    static func balanceCoefficient(_ configuration: ModelConfiguration) -> Float {
        let losses = configuration.mixtures.map(\.losses)
        guard let first = losses.first, first.scope == .pooled,
            losses.allSatisfy({ $0.scope == .pooled && $0.balance == first.balance })
        else { return 0 }
        return first.balance
    }
}

extension HubFamily {
    fileprivate static var deepSeek: [HubFamily] { allCases.filter(\.isDeepSeek) }
}

extension ModelConfiguration {
    /// The mixtures of the layers that have one.
    var mixtures: [MoEConfiguration] {
        feedForward.compactMap { if case .moe(let moe) = $0 { moe } else { nil } }
    }
}

/// Something a configuration asks for, and the families that have it.
private struct Demand {
    let key: String
    let found: String
    let families: [HubFamily]

    static func all(of configuration: ModelConfiguration) -> [Demand] {
        var list = model(configuration)
        for (layer, part) in configuration.feedForward.enumerated() {
            let key = "feed_forward[\(layer)]"
            switch part {
            case .dense(let width):
                let first = configuration.feedForward.lazy.compactMap { $0.denseWidth }.first ?? width
                // DeepSeek's dense layers come first, and mixtures behind them.
                let isFirst = configuration.mixtureLayers.first.map { layer < $0 } ?? false
                let families: [HubFamily] = [.qwen3MoE] + (isFirst ? HubFamily.deepSeek : [])
                list.append(Demand(key: "\(key).kind", found: "'dense'", families: families))
                list.append(
                    Demand(key: "\(key).width", found: "\(width)", families: width == first ? families : []))
                list.append(
                    Demand(
                        key: "activation", found: quoted(configuration.activation.rawValue),
                        families: configuration.activation == .swiglu ? HubFamily.allCases : []))
            case .moe(let moe):
                list += mixture(moe, key: key, first: configuration.mixtures.first ?? moe)
            }
        }
        return list
    }

    private static func model(_ configuration: ModelConfiguration) -> [Demand] {
        let all = HubFamily.allCases
        let isRotary = configuration.position != .learned
        let fills = configuration.headWidth * configuration.heads == configuration.width
        let others = all.filter { !$0.isDeepSeek }
        let latent = configuration.latent
        return [
            Demand(
                key: "patches", found: configuration.patches.map { "\($0.tokens - 1) of an image" } ?? "null",
                families: configuration.patches == nil ? all : []),
            Demand(
                key: "latent", found: latent.map { "\($0.keyValueRank) wide" } ?? "null",
                families: latent == nil ? others : HubFamily.deepSeek),
            Demand(
                key: "latent.pairing", found: quoted(latent?.pairing.rawValue ?? ""),
                families: latent?.pairing == .halves ? [.deepseekV3] : all),
            Demand(
                key: "yarn", found: configuration.yarn.map { "a factor of \($0.factor)" } ?? "null",
                families: configuration.yarn == nil ? all : HubFamily.deepSeek),
            Demand(
                key: "convolution", found: configuration.convolution.map { "in layers \($0.layers)" } ?? "null",
                families: configuration.convolution == nil ? all : []),
            Demand(
                key: "norm", found: quoted(configuration.norm.rawValue),
                families: configuration.norm == .rms ? all : []),
            Demand(
                key: "position", found: isRotary ? "'rotary'" : "'learned'", families: isRotary ? all : []),
            Demand(
                key: "query_key_norm", found: quoted(configuration.queryKeyNorm.rawValue),
                families: all.filter { $0.queryKeyNorm == configuration.queryKeyNorm }),
            Demand(
                key: "attention_bias", found: "\(configuration.attentionBias)",
                families: configuration.attentionBias ? [.olmoe, .qwen3MoE] : all),
            Demand(
                key: "attention_clip", found: configuration.attentionClip.map { "\($0)" } ?? "null",
                families: configuration.attentionClip != nil ? [.olmoe] : all),
            Demand(
                key: "sliding_window", found: configuration.slidingWindow.map { "\($0)" } ?? "null",
                families: configuration.slidingWindow != nil ? [.mixtral, .qwen3MoE] : all),
            Demand(
                key: "head_width",
                found: "\(configuration.headWidth), and \(configuration.heads) of them are not "
                    + "'width', \(configuration.width)",
                families: fills ? all : [.mixtral, .qwen3MoE] + HubFamily.deepSeek),
        ]
    }

    private static func mixture(_ moe: MoEConfiguration, key: String, first: MoEConfiguration) -> [Demand] {
        let all = HubFamily.allCases
        func demand(_ name: String, _ found: some CustomStringConvertible, _ families: [HubFamily]) -> Demand {
            Demand(key: "\(key).\(name)", found: found.description, families: families)
        }
        // Softmax over the chosen logits is softmax over all of them, renormalised.
        let renormalizes = moe.router.scoring == .topKThenSoftmax || moe.router.renormalizes
        let firstRenormalizes = first.router.scoring == .topKThenSoftmax || first.router.renormalizes
        return [
            demand("experts", moe.experts, moe.experts == first.experts ? all : []),
            demand("choices", moe.choices, moe.choices == first.choices ? all : []),
            demand("width", moe.width, moe.width == first.width ? all : []),
            demand("activation", quoted(moe.activation.rawValue), moe.activation == .swiglu ? all : []),
            demand("router.scoring", quoted(moe.router.scoring.rawValue), families(scoring: moe.router.scoring)),
            demand(
                "router.bias_rate", moe.router.biasRate,
                moe.router.scoring != .sigmoid || moe.router.biasRate > 0 ? all : []),
            demand(
                "router.renormalizes", renormalizes,
                renormalizes != firstRenormalizes
                    ? [] : all.filter { $0 != (renormalizes ? .deepseekV2 : .mixtral) }),
            demand(
                "router.cosine", moe.router.cosine.map { "a width of \($0.width)" } ?? "none",
                moe.router.cosine == nil ? all : []),
            demand(
                "router.groups",
                moe.router.groupLimit.map { "\($0.chosen) of \($0.groups), \($0.score.rawValue)" } ?? "none",
                moe.router.groupLimit == first.router.groupLimit ? families(groups: moe.router.groupLimit) : []),
            demand(
                "router.annealing", moe.router.annealing.map { "\($0.steps) steps" } ?? "none",
                moe.router.annealing == nil ? all : []),
            demand("router.nodes", moe.router.nodes.map { "\($0)" } ?? "none", moe.router.nodes == nil ? all : []),
            demand(
                "router.weight_scale", moe.router.weightScale,
                moe.router.weightScale == 1
                    ? all : moe.router.weightScale == first.router.weightScale ? HubFamily.deepSeek : []),
            demand(
                "policy.kind", moe.policy == .dropless ? "'dropless'" : "'capacity'", moe.policy == .dropless ? all : []
            ),
            demand("shared_width", moe.sharedWidth, families(shared: moe, first: first)),
            demand(
                "shared_combination", "'\(moe.sharedCombination.rawValue)'", moe.sharedCombination == .sum ? all : []),
            demand(
                "shortcut.position", moe.shortcut.map { "\($0.position.rawValue)" } ?? "none",
                moe.shortcut == nil ? all : []),
            demand(
                "parameters_of", moe.parametersOf.map { "\($0)" } ?? "null", moe.parametersOf == nil ? all : []),
            demand("residual", moe.isResidual, moe.isResidual ? [] : all),
        ]
    }

    private static func families(scoring: RouterConfiguration.Scoring) -> [HubFamily] {
        switch scoring {
        case .sigmoid: [.deepseekV3]
        case .softmaxThenTopK: HubFamily.allCases.filter { $0 != .deepseekV3 }
        case .topKThenSoftmax: HubFamily.allCases.filter { !$0.isDeepSeek }
        }
    }

    private static func families(groups: GroupLimit?) -> [HubFamily] {
        guard let groups else { return HubFamily.allCases }
        return switch groups.score {
        case .best: [.deepseekV2]
        case .bestTwo: [.deepseekV3]
        case .sum: []
        }
    }

    /// DeepSeek's shared experts are a whole number of experts, at least one.
    private static func families(shared moe: MoEConfiguration, first: MoEConfiguration) -> [HubFamily] {
        if moe.sharedWidth == 0 { return HubFamily.allCases.filter { !$0.isDeepSeek } }
        return moe.sharedWidth % moe.width == 0 && moe.sharedWidth == first.sharedWidth ? HubFamily.deepSeek : []
    }
}

extension ModelConfiguration.FeedForward {
    fileprivate var denseWidth: Int? { if case .dense(let width) = self { width } else { nil } }
}
