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
            if moe.losses.balance > 0, Self.balanceCoefficient(configuration) == 0 { keys.insert("losses.balance") }
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
                list.append(Demand(key: "\(key).kind", found: "'dense'", families: [.qwen3MoE]))
                list.append(
                    Demand(key: "\(key).width", found: "\(width)", families: width == first ? [.qwen3MoE] : []))
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
        return [
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
                    + "'width', \(configuration.width)", families: fills ? all : [.mixtral, .qwen3MoE]),
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
            demand("router.scoring", quoted(moe.router.scoring.rawValue), moe.router.scoring != .sigmoid ? all : []),
            demand(
                "router.renormalizes", renormalizes,
                renormalizes != firstRenormalizes ? [] : renormalizes ? all : [.olmoe, .qwen3MoE]),
            demand(
                "router.cosine", moe.router.cosine.map { "a width of \($0.width)" } ?? "none",
                moe.router.cosine == nil ? all : []),
            demand(
                "router.groups", moe.router.groupLimit.map { "\($0.chosen) of \($0.groups)" } ?? "none",
                moe.router.groupLimit == nil ? all : []),
            demand(
                "router.annealing", moe.router.annealing.map { "\($0.steps) steps" } ?? "none",
                moe.router.annealing == nil ? all : []),
            demand("router.nodes", moe.router.nodes.map { "\($0)" } ?? "none", moe.router.nodes == nil ? all : []),
            demand("router.weight_scale", moe.router.weightScale, moe.router.weightScale == 1 ? all : []),
            demand(
                "policy.kind", moe.policy == .dropless ? "'dropless'" : "'capacity'", moe.policy == .dropless ? all : []
            ),
            demand("shared_width", moe.sharedWidth, moe.sharedWidth == 0 ? all : []),
            demand(
                "shortcut.position", moe.shortcut.map { "\($0.position.rawValue)" } ?? "none",
                moe.shortcut == nil ? all : []),
            demand(
                "parameters_of", moe.parametersOf.map { "\($0)" } ?? "null", moe.parametersOf == nil ? all : []),
            demand("residual", moe.isResidual, moe.isResidual ? [] : all),
        ]
    }
}

extension ModelConfiguration.FeedForward {
    fileprivate var denseWidth: Int? { if case .dense(let width) = self { width } else { nil } }
}
