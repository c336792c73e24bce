import ApusExperts
import ApusKernels
import ApusModels
import Testing

@Suite struct ConfigurationJSONTests {
    /// Nothing at its default, so that a field that is lost shows.
    static let unusual = ModelConfiguration(
        vocabulary: 1001, width: 48, heads: 6, keyValueHeads: 3, headWidth: 10, maximumPositions: 77, norm: .layer,
        normEpsilon: 3e-6, position: .rotary(theta: 12_345.5), queryKeyNorm: .head, attentionBias: true,
        attentionClip: 8, slidingWindow: 33, activation: .relu,
        feedForward: [
            .dense(width: 55),
            .moe(
                MoEConfiguration(
                    experts: 5, choices: 3, width: 17, activation: .geluTanh,
                    router: RouterConfiguration(
                        scoring: .sigmoid, renormalizes: true, weightScale: 2.5, jitter: 0.01, gumbel: true,
                        biasRate: 1e-3),
                    policy: .capacity(factor: 1.1, minimum: 7, order: .probability), bank: .padded,
                    losses: RouterLosses(balance: 0.1, scope: .pooled, z: 1e-4, importance: 0.3), sharedWidth: 9,
                    isResidual: true)),
        ],
        tiedEmbeddings: true, initialDeviation: 0.014)

    @Test func `every field survives`() throws {
        let text = Self.unusual.json()
        #expect(try ModelConfiguration(json: text) == Self.unusual)
        #expect(try ModelConfiguration(json: text).json() == text)
        let stored = try CheckpointConfiguration(json: text)
        #expect(stored.configuration == Self.unusual && stored.family == nil && stored.dtype == nil)
        var learned = Self.unusual
        learned.position = .learned
        learned.attentionClip = nil
        learned.slidingWindow = nil
        #expect(try ModelConfiguration(json: learned.json()) == learned)
    }

    @Test func `latent attention and stretched positions survive, and what cannot be is refused`() throws {
        var model = ModelConfiguration(
            vocabulary: 11, width: 12, heads: 2, maximumPositions: 64, feedForward: [.dense(width: 8)],
            latent: LatentConfiguration(
                queryRank: 7, keyValueRank: 5, plainWidth: 3, rotaryWidth: 4, valueWidth: 6, pairing: .halves),
            yarn: YarnConfiguration(
                factor: 4, originalPositions: 16, betaFast: 30, betaSlow: 2, mscale: 0.7, mscaleAll: 0.8))
        #expect(model.headWidth == 7)
        #expect(try ModelConfiguration(json: model.json()) == model)
        for key in ["latent", "yarn"] { #expect(!Self.unusual.json().contains("\"\(key)\"")) }
        typealias Change = (inout ModelConfiguration) -> Void
        let changes: [(String, Change)] = [
            ("latent.rotary_width", { $0.latent?.rotaryWidth = 3 }),
            ("latent.value_width", { $0.latent?.valueWidth = 257 }),
            ("latent.key_value_rank", { $0.latent?.keyValueRank = 0 }), ("head_width", { $0.headWidth = 8 }),
            ("key_value_heads", { $0.keyValueHeads = 1 }), ("position.kind", { $0.position = .learned }),
            ("query_key_norm", { $0.queryKeyNorm = .head }), ("attention_bias", { $0.attentionBias = true }),
            ("attention_clip", { $0.attentionClip = 3 }), ("yarn.factor", { $0.yarn?.factor = 0.5 }),
            ("yarn.beta_fast", { $0.yarn?.betaFast = 1 }), ("position.theta", { $0.position = .rotary(theta: 1) }),
            ("yarn", { ($0.latent, $0.headWidth) = (nil, 8) }),
        ]
        for (key, change) in changes {
            var other = model
            change(&other)
            let error = #expect(throws: ModelConfigurationError.self) { try other.checkSizes() }
            guard case .impossible(key, _, _)? = error else {
                Issue.record("\(key): \(String(describing: error))")
                continue
            }
        }
        model.latent?.queryRank = nil
        #expect(try ModelConfiguration(json: model.json()) == model)
    }

    @Test func `convolutions survive, and what cannot be is refused`() throws {
        var model = ModelConfiguration(
            vocabulary: 11, width: 12, heads: 2, maximumPositions: 64,
            feedForward: [.dense(width: 8), .dense(width: 8), .dense(width: 8)],
            convolution: ConvolutionConfiguration(layers: [0, 2], width: 3))
        #expect(try ModelConfiguration(json: model.json()) == model)
        #expect(!Self.unusual.json().contains("\"convolution\""))
        for (key, wrong) in [
            ("convolution.width", ConvolutionConfiguration(layers: [0], width: 1)),
            ("convolution.width", ConvolutionConfiguration(layers: [0], width: 65)),
            ("convolution.layers", ConvolutionConfiguration(layers: [])),
            ("convolution.layers", ConvolutionConfiguration(layers: [3])),
            ("convolution.layers", ConvolutionConfiguration(layers: [-1])),
            ("convolution.layers", ConvolutionConfiguration(layers: [2, 0])),
            ("convolution.layers", ConvolutionConfiguration(layers: [1, 1])),
        ] {
            model.convolution = wrong
            let error = #expect(throws: ModelConfigurationError.self) { try model.checkSizes() }
            guard case .impossible(key, _, _)? = error else {
                Issue.record("\(wrong): \(String(describing: error))")
                continue
            }
        }
    }

    /// Fields that came later are left out where there is none of them; each survives where there is.
    @Test func `later fields survive, and older files are read`() throws {
        var model = Self.unusual
        model.initialScale = 0.1
        guard case .moe(var moe) = model.feedForward[1] else { return }
        moe.dropout = 0.4
        moe.experts = 6
        moe.policy = .capacity(factor: -1.5, minimum: 7, order: .importance, evaluation: 2)
        moe.router.cosine = CosineConfiguration(width: 12, temperature: 0.3, floor: 0.02)
        moe.router.groupLimit = GroupLimit(groups: 3, chosen: 2, score: .bestTwo)
        model.feedForward[1] = .moe(moe)
        #expect(try ModelConfiguration(json: model.json()) == model)
        moe.router = RouterConfiguration(annealing: DenseToSparse(start: 3, end: 0.5, steps: 70, threshold: 0.02))
        moe.losses.scope = .layer
        model.feedForward[1] = .moe(moe)
        #expect(try ModelConfiguration(json: model.json()) == model)
        moe.router = RouterConfiguration(nodes: 2)
        (moe.experts, moe.choices) = (6, 3)
        model.feedForward[1] = .moe(moe)
        #expect(try ModelConfiguration(json: model.json()) == model)
        for key in ["nodes", "initial_scale", "dropout", "evaluation", "cosine", "groups", "annealing"] {
            #expect(!Self.unusual.json().contains("\"\(key)\""))
        }
    }

    @Test func `impossible routers are refused`() throws {
        func refused(_ change: (inout MoEConfiguration) -> Void) -> String? {
            var moe = MoEConfiguration(experts: 6, choices: 2, width: 8)
            change(&moe)
            let model = ModelConfiguration(
                vocabulary: 20, width: 16, heads: 4, maximumPositions: 12, feedForward: [.moe(moe)])
            do { try model.checkSizes() } catch { return "\(error)" }
            return nil
        }
        #expect(refused { _ in } == nil)
        #expect(refused { $0.router.groupLimit = GroupLimit(groups: 4, chosen: 1) }?.contains("router.groups") == true)
        #expect(
            refused { $0.router.cosine = CosineConfiguration(temperature: 0.1, floor: 0.2) }?
                .contains("router.cosine.floor") == true)
        #expect(
            refused { $0.router = RouterConfiguration(gumbel: true, annealing: DenseToSparse(steps: 5)) }?
                .contains("router.annealing") == true)
        #expect(
            refused {
                $0.router.annealing = DenseToSparse(steps: 5)
                $0.losses.scope = .pooled
            }?.contains("losses.scope") == true)
        #expect(refused { $0.router.nodes = 4 }?.contains("router.nodes") == true)
        #expect(
            refused { $0.router = RouterConfiguration(scoring: .sigmoid, nodes: 3) }?.contains("router.nodes") == true)
        #expect(
            refused {
                $0.dropout = 0.1
                ($0.bank, $0.blockSize) = (.blockSparse, 8)
            }?.contains("dropout") == true)
        #expect(
            refused {
                ($0.experts, $0.choices) = (16, 12)
                $0.policy = .capacity(factor: 1, minimum: 1, order: .importance)
            }?.contains("policy.order") == true)
    }

    @Test func `keys are sorted and numbers short`() {
        let text = Self.unusual.json()
        let keys = text.split(separator: "\n").filter { $0.hasPrefix("  \"") }.map { $0.prefix { $0 != ":" } }
        #expect(keys.count == 18)
        #expect(keys == keys.sorted())
        #expect(text.contains("\"norm_epsilon\": 3e-06"))
        #expect(text.contains("\"balance\": 0.1,"))
        #expect(text.hasSuffix("}\n"))
    }

    @Test func `every key is needed`() throws {
        let lines = Self.unusual.json().split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        var dropped = 0
        for (index, line) in lines.enumerated() {
            let isLeaf = line.contains("\": ") && !line.hasSuffix("{") && !line.hasSuffix("[")
            guard isLeaf else { continue }
            var rest = lines
            rest.remove(at: index)
            if !line.hasSuffix(","), rest[index - 1].hasSuffix(",") { rest[index - 1].removeLast() }
            let key = String(line.split(separator: "\"")[1])
            let error = #expect(throws: ModelConfigurationError.self) {
                try ModelConfiguration(json: rest.joined(separator: "\n"))
            }
            if case .missingKey(_, let named)? = error {
                #expect(named.split(separator: ".").last.map(String.init) == key)
                dropped += 1
            } else {
                Issue.record("dropping \(key) gave \(String(describing: error))")
            }
        }
        // 16 of the model, 2 of its position, 2 of the dense layer, 9 + 6 + 4 + 4 of the mixture and its parts.
        #expect(dropped == 43)
    }

    @Test(arguments: [
        ("\"heads\": 6", "\"heads\": 6, \"head\": 1", "unknown key 'head'; the nearest known one is 'heads'"),
        ("\"z\": 0.0001", "\"z\": 0.0001, \"zz\": 1", "unknown key 'feed_forward[1].losses.zz'"),
        ("\"heads\": 6", "\"heads\": true", "'heads' is true; it must be a whole number from 0"),
        ("\"heads\": 6", "\"heads\": 6.5", "'heads' is 6.5; it must be a whole number from 0"),
        ("\"heads\": 6", "\"heads\": \"6\"", "'heads' is '6'; it must be a whole number"),
        ("\"heads\": 6", "\"heads\": null", "has no key 'heads'"),
        ("\"heads\": 6", "\"heads\": 99999999999999999999", "it must be a whole number"),
        ("\"tied_embeddings\": true", "\"tied_embeddings\": 1", "'tied_embeddings' is 1; it must be true or false"),
        ("\"norm\": \"layer\"", "\"norm\": \"batch\"", "'norm' is 'batch'; it must be one of 'rms', 'layer'"),
        (
            "\"kind\": \"dense\"", "\"kind\": \"sparse\"",
            "'feed_forward[0].kind' is 'sparse'; it must be one of 'dense', 'moe'"
        ),
        ("\"key_value_heads\": 3", "\"key_value_heads\": 4", "'key_value_heads' is 4: it must divide 'heads', 6"),
        ("\"head_width\": 10", "\"head_width\": 9", "'head_width' is 9: rotary positions turn pairs"),
        ("\"choices\": 3", "\"choices\": 6", "'feed_forward[1].choices' is 6: a token chooses from 1 to all 5 experts"),
        ("\"width\": 17", "\"width\": 0", "'feed_forward[1].width' is 0"),
        ("\"width\": 48", "\"width\": 1000000000000", "'model' is about"),
        ("\"width\": 48", "\"width\": 9000000000000000000", "'width' is 9000000000000000000: no model is that large"),
        ("\"factor\": 1.1", "\"factor\": 1e99", "single precision"),
        ("\"model_type\": \"apus\"", "\"model_type\": \"mixtral\"", "it must be 'apus'"),
    ])
    func `mistakes are named`(good: String, bad: String, message: String) {
        let text = Self.unusual.json()
        #expect(text.contains(good))
        let changed = text.replacing(good, with: bad, maxReplacements: 1)
        let error = #expect(throws: ModelConfigurationError.self) {
            try ModelConfiguration(json: changed, path: "a/b.json")
        }
        #expect(error.map(String.init(describing:))?.contains(message) == true, "\(String(describing: error))")
        #expect(error.map(String.init(describing:))?.contains("\n") == false)
    }

    @Test(arguments: [
        "", "{", "[]", "7", "null", "{\"a\": }", "{\"a\": Infinity}", "\u{0}", "{\"model_type\": 3}", "{}",
    ])
    func `text that is no configuration is refused`(text: String) {
        #expect(throws: ModelConfigurationError.self) { try ModelConfiguration(json: text) }
        #expect(throws: ModelConfigurationError.self) { try CheckpointConfiguration(json: text) }
    }

    @Test func `an unknown architecture names the known ones`() {
        let error = #expect(throws: ModelConfigurationError.self) {
            try CheckpointConfiguration(json: #"{"model_type": "gpt_oss"}"#, path: "m/config.json")
        }
        #expect(
            error.map(String.init(describing:))
                == "'m/config.json': a model of type 'gpt_oss' is not supported; supported are 'apus', 'mixtral', "
                + "'olmoe', 'qwen3_moe', 'deepseek_v2', 'deepseek_v3'")
    }
}
