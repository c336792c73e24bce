import ApusExperts
import ApusKernels
import ApusTensor
import Testing

@testable import ApusModels

@Suite struct HubFitTests {
    static func model(_ change: (inout ModelConfiguration, inout MoEConfiguration) -> Void) -> ModelConfiguration {
        var moe = MoEConfiguration(
            experts: 4, choices: 2, width: 24, router: RouterConfiguration(renormalizes: true),
            losses: RouterLosses(balance: 0.01, scope: .pooled))
        var model = ModelConfiguration(vocabulary: 64, width: 32, heads: 4, maximumPositions: 16, feedForward: [])
        model.feedForward = [.dense(width: 1), .dense(width: 1)]
        change(&model, &moe)
        if model.feedForward == [.dense(width: 1), .dense(width: 1)] { model.feedForward = [.moe(moe), .moe(moe)] }
        return model
    }

    /// What each family can say, property by property.
    @Test func `families differ where their code does`() {
        func families(_ change: (inout ModelConfiguration, inout MoEConfiguration) -> Void) -> [HubFamily] {
            HubFamily.allCases.filter { $0.canExpress(Self.model(change)) }
        }
        #expect(families { _, _ in } == [.mixtral])
        #expect(families { model, _ in model.queryKeyNorm = .projection } == [.olmoe])
        #expect(families { model, _ in model.queryKeyNorm = .head } == [.qwen3MoE])
        #expect(families { model, _ in model.headWidth = 16 } == [.mixtral])
        #expect(
            families { _, moe in
                moe.router.scoring = .topKThenSoftmax
                moe.router.renormalizes = false
            } == [.mixtral])
        for norm in [ModelConfiguration.QueryKeyNorm.projection, .head] {
            let own: [HubFamily] = norm == .head ? [.qwen3MoE] : [.olmoe]
            #expect(
                families { model, moe in
                    model.queryKeyNorm = norm
                    moe.router.renormalizes = false
                } == own)
            #expect(
                families { model, _ in
                    model.queryKeyNorm = norm
                    model.attentionBias = true
                } == own)
            #expect(
                families { model, _ in
                    model.queryKeyNorm = norm
                    model.tiedEmbeddings = true
                } == own)
        }
        #expect(
            families { model, _ in
                model.queryKeyNorm = .projection
                model.attentionClip = 3
            } == [.olmoe])
        #expect(
            families { model, _ in
                model.queryKeyNorm = .head
                model.attentionClip = 3
            } == [])
        #expect(
            families { model, _ in
                model.queryKeyNorm = .projection
                model.headWidth = 16
            } == [])
        #expect(
            families { model, _ in
                model.queryKeyNorm = .head
                model.slidingWindow = 3
            } == [.qwen3MoE])
        #expect(families { model, _ in model.slidingWindow = 3 } == [.mixtral])
    }

    @Test(arguments: [HubFamily.mixtral, .olmoe, .qwen3MoE])
    func `what no family has is refused with the advice to keep it`(family: HubFamily) {
        typealias Change = (inout ModelConfiguration, inout MoEConfiguration) -> Void
        let changes: [(String, Change)] = [
            ("norm", { model, _ in model.norm = .layer }),
            ("position", { model, _ in model.position = .learned }),
            ("convolution", { model, _ in model.convolution = ConvolutionConfiguration(layers: [0]) }),
            ("feed_forward[0].activation", { _, moe in moe.activation = .gelu }),
            (
                "feed_forward[0].policy.kind",
                { _, moe in moe.policy = .capacity(factor: 1, minimum: 4, order: .position) }
            ),
            ("feed_forward[0].router.cosine", { _, moe in moe.router.cosine = CosineConfiguration(width: 8) }),
            (
                "feed_forward[0].router.groups",
                { _, moe in moe.router.groupLimit = GroupLimit(groups: 1, chosen: 1, score: .sum) }
            ),
            ("feed_forward[0].router.nodes", { _, moe in (moe.losses.scope, moe.router.nodes) = (.layer, 1) }),
            (
                "feed_forward[0].router.annealing",
                { _, moe in (moe.losses.scope, moe.router.annealing) = (.layer, DenseToSparse(steps: 5)) }
            ),
            ("feed_forward[0].shared_width", { _, moe in moe.sharedWidth = 8 }),
            ("feed_forward[0].residual", { _, moe in moe.isResidual = true }),
        ]
        for (key, change) in changes {
            let model = Self.model { model, moe in
                model.queryKeyNorm = family.queryKeyNorm
                change(&model, &moe)
            }
            let error = #expect(throws: ModelConfigurationError.self) { try family.json(model, dtype: .f32) }
            guard case .notExpressible(family, let named, _, [])? = error else {
                Issue.record("\(key): \(String(describing: error))")
                continue
            }
            #expect(named == key)
        }
    }

    /// A DeepSeek-V3 of three layers, or a V2.
    static func deepSeek(
        _ family: HubFamily, _ change: (inout ModelConfiguration, inout MoEConfiguration) -> Void = { _, _ in }
    ) -> ModelConfiguration {
        let isV3 = family == .deepseekV3
        var moe = MoEConfiguration(
            experts: 8, choices: 2, width: 6,
            router: RouterConfiguration(
                scoring: isV3 ? .sigmoid : .softmaxThenTopK, renormalizes: isV3, weightScale: 1.5,
                biasRate: isV3 ? 0.001 : 0,
                groupLimit: GroupLimit(groups: 4, chosen: 2, score: isV3 ? .bestTwo : .best)),
            losses: RouterLosses(balance: 0.01), sharedWidth: 12)
        var model = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, maximumPositions: 32, feedForward: [],
            latent: LatentConfiguration(
                queryRank: isV3 ? 6 : nil, keyValueRank: 5, plainWidth: 3, rotaryWidth: 4, valueWidth: 6),
            yarn: isV3 ? YarnConfiguration(factor: 2, originalPositions: 16, mscale: 0.7, mscaleAll: 0.7) : nil)
        change(&model, &moe)
        if model.feedForward.isEmpty { model.feedForward = [.dense(width: 9), .moe(moe), .moe(moe)] }
        return model
    }

    @Test(arguments: [HubFamily.deepseekV2, .deepseekV3])
    func `DeepSeek models are their family's and no other's, and come back`(family: HubFamily) throws {
        let model = Self.deepSeek(family)
        #expect(HubFamily.allCases.filter { $0.canExpress(model) } == [family])
        #expect(try CheckpointConfiguration(json: family.json(model, dtype: .f32)).configuration == model)
        #expect(family.leftBehind(model) == [])
        let unlimited = Self.deepSeek(family) { _, moe in moe.router.groupLimit = nil }
        #expect(try CheckpointConfiguration(json: family.json(unlimited, dtype: .f32)).configuration == unlimited)
    }

    @Test func `what DeepSeek's files cannot say is named`() {
        typealias Change = (inout ModelConfiguration, inout MoEConfiguration) -> Void
        let changes: [(HubFamily, String, Change)] = [
            (.deepseekV2, "latent", { model, _ in (model.latent, model.headWidth) = (nil, 4) }),
            (.deepseekV2, "latent.pairing", { model, _ in model.latent?.pairing = .halves }),
            (.deepseekV2, "feed_forward[1].router.renormalizes", { _, moe in moe.router.renormalizes = true }),
            (.deepseekV2, "feed_forward[1].router.groups", { _, moe in moe.router.groupLimit?.score = .bestTwo }),
            (.deepseekV3, "feed_forward[1].router.bias_rate", { _, moe in moe.router.biasRate = 0 }),
            (.deepseekV3, "feed_forward[1].shared_width", { _, moe in moe.sharedWidth = 0 }),
            (.deepseekV3, "feed_forward[1].shared_width", { _, moe in moe.sharedWidth = 9 }),
            (.deepseekV3, "feed_forward[1].shared_combination", { _, moe in moe.sharedCombination = .gate }),
            (.deepseekV3, "sliding_window", { model, _ in model.slidingWindow = 8 }),
            (.deepseekV3, "feed_forward[1].kind", { model, moe in model.feedForward = [.moe(moe), .dense(width: 9)] }),
        ]
        for (family, key, change) in changes {
            let error = #expect(throws: ModelConfigurationError.self) {
                try family.check(Self.deepSeek(family, change))
            }
            guard case .notExpressible(family, key, _, _)? = error else {
                Issue.record("\(key): \(String(describing: error))")
                continue
            }
        }
        #expect(
            HubFamily.deepseekV3.canExpress(Self.deepSeek(.deepseekV3) { model, _ in model.latent?.pairing = .halves }))
        let other = Self.deepSeek(.deepseekV3) { _, moe in (moe.router.biasRate, moe.losses.scope) = (0.01, .pooled) }
        #expect(HubFamily.deepseekV3.leftBehind(other) == ["losses.balance", "router.bias_rate"])
    }

    @Test func `the error names who could`() {
        let model = Self.model { model, _ in model.queryKeyNorm = .head }
        let error = #expect(throws: ModelConfigurationError.self) { try HubFamily.mixtral.json(model, dtype: .f32) }
        #expect(
            error.map(String.init(describing:))
                == "'query_key_norm' is 'head', which Mixtral models have no way to say; Qwen3-MoE models have")
        let dense = Self.model { model, _ in model.feedForward = [.dense(width: 8)] }
        #expect(throws: ModelConfigurationError.self) { try HubFamily.mixtral.check(dense) }
    }

    @Test func `layers that differ are no family's`() {
        var model = Self.model { model, _ in model.queryKeyNorm = .head }
        #expect(HubFamily.qwen3MoE.canExpress(model))
        model.feedForward.append(.dense(width: 10))
        #expect(HubFamily.qwen3MoE.canExpress(model))
        model.feedForward.append(.dense(width: 11))
        #expect(!HubFamily.qwen3MoE.canExpress(model))
        model.feedForward = model.feedForward.map { part in
            guard case .moe(var moe) = part else { return part }
            moe.losses = RouterLosses()
            return .moe(moe)
        }
        model.feedForward[3] = .moe(
            MoEConfiguration(experts: 5, choices: 2, width: 24, router: RouterConfiguration(renormalizes: true)))
        #expect(
            throws: ModelConfigurationError.notExpressible(
                family: .qwen3MoE, key: "feed_forward[3].experts", found: "5", others: [])
        ) {
            try HubFamily.qwen3MoE.check(model)
        }
    }

    @Test func `a dense model is a Qwen3-MoE without experts`() throws {
        let model = Self.model { model, _ in
            model.queryKeyNorm = .head
            model.feedForward = [.dense(width: 8), .dense(width: 8)]
        }
        let text = try HubFamily.qwen3MoE.json(model, dtype: .f32)
        #expect(try CheckpointConfiguration(json: text).configuration == model)
    }

    @Test func `what training alone needs stays behind`() throws {
        let model = Self.model { _, moe in
            moe.router.jitter = 0.01
            moe.losses = RouterLosses(balance: 0.02, scope: .layer, z: 0.001)
        }
        #expect(HubFamily.mixtral.leftBehind(model) == ["losses.balance", "losses.z", "router.jitter"])
        let again = try CheckpointConfiguration(json: HubFamily.mixtral.json(model, dtype: .f32)).configuration
        #expect(again.mixtures[0].losses.balance == 0)
        #expect(HubFamily.mixtral.leftBehind(Self.model { _, _ in }) == [])
    }
}
