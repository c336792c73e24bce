import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusParallel
import ApusTestSupport
import ApusTraining
import Foundation
import Testing

@Suite("Reading recipes")
struct RecipeReadingTests {
    @Test("defaults are filled in")
    func defaults() throws {
        let recipe = try Recipe(yaml: Fixture.good)
        #expect(recipe.seed == 1)
        #expect(recipe.model.vocabulary == 257)
        #expect(recipe.model.headWidth == 16)
        #expect(recipe.model.maximumPositions == 128)
        #expect(recipe.model.moe(layer: 0) == nil)
        #expect(recipe.model.moe(layer: 1) == MoEConfiguration(experts: 8, choices: 2, width: 32))
        #expect(recipe.model.feedForward[2] == .dense(width: 128))
        #expect(recipe.data == DataConfiguration(path: "text.txt", sequenceLength: 128))
        #expect(recipe.training == TrainingConfiguration(steps: 100, batch: 8))
        #expect(recipe.output == OutputConfiguration())
    }

    @Test("the weights to begin with are named, and written back")
    func start() throws {
        let recipe = try Recipe(yaml: Fixture.good, overrides: ["training.start='models/it''s here'"])
        #expect(recipe.training.start == "models/it's here")
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        #expect(try Recipe(yaml: Fixture.good).training.start == nil)
    }

    @Test("every key lands where it belongs")
    func everyKey() throws {
        let recipe = try Recipe(
            yaml: """
                seed: 7
                model:
                  vocabulary: 320
                  layers: 3
                  width: 96
                  heads: 6
                  key_value_heads: 3
                  head_width: 32
                  maximum_positions: 512
                  norm: layer
                  norm_epsilon: 1e-6
                  position: {kind: learned}
                  query_key_norm: head
                  attention_bias: true
                  attention_clip: 8
                  sliding_window: 64
                  activation: gelu
                  feed_forward_width: 200
                  tied_embeddings: true
                  initial_deviation: 0.01
                  initial_scale: 0.1
                  experts:
                    count: [4, 8]
                    choices: 3
                    width: 48
                    layers: [2, 0]
                    activation: relu
                    router: {scoring: sigmoid, renormalize: true, weight_scale: 2.5, jitter: 0.1, gumbel: true, bias_rate: 0.001, cosine: {width: 24, temperature: 0.4, floor: 0.02}, groups: {count: 2, chosen: 2, score: best-two}}
                    policy: {capacity: 1.5, minimum: 2, order: probability, evaluation: 2.5}
                    bank: padded
                    losses: {balance: 0.02, scope: layer, z: 0.003, importance: 0.004}
                    shared_width: 16
                    residual: true
                    dropout: 0.3
                data: {path: 'some dir/a: b', vocabulary: bytes, sequence_length: 100, held_out: 0.25, shuffle: false}
                training:
                  steps: 1_000
                  batch: 12
                  micro_batch: 6
                  precision: bf16-pure
                  optimizer: {learning_rate: 3e-4, beta1: 0.8, beta2: 0.99, epsilon: 1e-6, weight_decay: 0}
                  schedule: {kind: constant-then-decay, warmup_steps: 10, final_fraction: 0.2, decay_steps: 300}
                  clip_norm: 0
                  checkpointing: true
                  routing_group: 3
                  balance_group: 6
                  evaluate_every: 50
                  evaluate_batches: 3
                  deterministic: false
                  threads: 2
                  memory_limit: 8GiB
                layout:
                  tensor: 2
                  expert: [4, 1, 2]
                  data: 4
                  pipeline: 1
                  expert_tensor: false
                  order: data-before-expert
                  zero: 2
                  sequence_parallel: true
                  drop_duplicates: false
                  fuse_reduce_scatter: false
                  keep_collectives: false
                  ranks_per_node: 2
                  timeout: 60
                output: {save_every: 20, keep: 5, log_every: 1}
                """)
        let mixture = MoEConfiguration(
            experts: 4, choices: 3, width: 48, activation: .relu,
            router: RouterConfiguration(
                scoring: .sigmoid, renormalizes: true, weightScale: 2.5, jitter: 0.1, gumbel: true, biasRate: 0.001,
                cosine: CosineConfiguration(width: 24, temperature: 0.4, floor: 0.02),
                groupLimit: GroupLimit(groups: 2, chosen: 2, score: .bestTwo)),
            policy: .capacity(factor: 1.5, minimum: 2, order: .probability, evaluation: 2.5), bank: .padded,
            losses: RouterLosses(balance: 0.02, scope: .layer, z: 0.003, importance: 0.004), sharedWidth: 16,
            isResidual: true, dropout: 0.3)
        var larger = mixture
        larger.experts = 8
        let model = ModelConfiguration(
            vocabulary: 320, width: 96, heads: 6, keyValueHeads: 3, headWidth: 32, maximumPositions: 512, norm: .layer,
            normEpsilon: 1e-6, position: .learned, queryKeyNorm: .head, attentionBias: true, attentionClip: 8,
            slidingWindow: 64, activation: .gelu, feedForward: [.moe(mixture), .dense(width: 200), .moe(larger)],
            tiedEmbeddings: true, initialDeviation: 0.01, initialScale: 0.1)
        let training = TrainingConfiguration(
            steps: 1000, batch: 12, microBatch: 6, precision: .bf16Pure,
            optimizer: .init(learningRate: 3e-4, beta1: 0.8, beta2: 0.99, epsilon: 1e-6, weightDecay: 0),
            schedule: .init(kind: .constantThenDecay, warmupSteps: 10, finalFraction: 0.2, decaySteps: 300),
            clipNorm: 0,
            checkpointing: true, routingGroup: 3, balanceGroup: 6, evaluateEvery: 50, evaluateBatches: 3,
            deterministic: false, threads: 2, memoryLimit: 8 << 30)
        let parallel = ParallelConfiguration(
            layout: LayoutConfiguration(
                tensor: 2, expert: .perLayer([4, 1, 2]), data: 4, expertTensor: false, order: .dataBeforeExpert),
            zero: .gradients, sequenceParallel: true, dropsDuplicates: false, fusesReduceScatter: false,
            keepsCollectives: false, ranksPerNode: 2, timeout: 60)
        #expect(
            recipe
                == Recipe(
                    seed: 7, model: model,
                    data: DataConfiguration(path: "some dir/a: b", sequenceLength: 100, heldOut: 0.25, shuffle: false),
                    training: training, parallel: parallel,
                    output: OutputConfiguration(saveEvery: 20, keep: 5, logEvery: 1)))
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
    }

    @Test("a gate from dense to sparse is read, and taken away")
    func annealing() throws {
        let yaml = Fixture.good.replacing(
            "every: 2", with: "every: 2\n    router: {annealing: {start: 3, end: 0.5, steps: 70, threshold: 0.02}}")
        let recipe = try Recipe(yaml: yaml)
        #expect(
            recipe.model.moe(layer: 1)?.router.annealing
                == DenseToSparse(start: 3, end: 0.5, steps: 70, threshold: 0.02))
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        let plain = try Recipe(yaml: yaml, overrides: ["model.experts.router.annealing=null"])
        #expect(plain.model.moe(layer: 1)?.router.annealing == nil)
    }

    @Test("the recipes of routers say what their papers have")
    func routers() throws {
        func mixture(_ name: String) throws -> MoEConfiguration? {
            let model = try Recipe(contentsOf: Fixture.folder.appendingPathComponent("\(name).yaml").path).model
            try model.checkSizes()
            return model.feedForward.lazy.compactMap { if case .moe(let moe) = $0 { moe } else { nil } }.first
        }
        #expect(try mixture("smile")?.router.nodes == 4)
        #expect(try mixture("switch")?.dropout == 0.1)
        #expect(try mixture("switch")?.policy == .capacity(factor: 1, minimum: 4, order: .position, evaluation: 2))
        #expect(try mixture("group-limited")?.router.groupLimit == GroupLimit(groups: 8, chosen: 4, score: .bestTwo))
        #expect(try mixture("tutel")?.policy == .capacity(factor: -2, minimum: 4, order: .importance))
        #expect(try mixture("tutel")?.router.cosine == CosineConfiguration(width: 64, temperature: 0.5, floor: 0.01))
        #expect(
            try mixture("dts-gate")?.router.annealing == DenseToSparse(start: 2, end: 0.3, steps: 300, threshold: 0.05))
    }

    @Test("a shortcut, how the shared expert joins, and shared parameters are read, and taken away")
    func shortcut() throws {
        let yaml = Fixture.good.replacing(
            "every: 2",
            with: "every: 2\n    shortcut: {position: 3}\n    shared_width: 32\n    shared_combination: softmax")
        let recipe = try Recipe(yaml: yaml)
        let mixture = recipe.model.moe(layer: 1)
        #expect(mixture?.shortcut == ShortcutConfiguration(position: .input))
        #expect(mixture?.sharedCombination == .softmax && mixture?.sharedWidth == 32)
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        let plain = try Recipe(yaml: yaml, overrides: ["model.experts.shortcut=null"])
        #expect(plain.model.moe(layer: 1)?.shortcut == nil)

        let dual = try Recipe(
            yaml: Fixture.good,
            overrides: ["model.experts.shortcut.dual=true", "model.experts.choices=1", "model.experts.share=2"])
        #expect(dual.model.moe(layer: 1)?.shortcut == ShortcutConfiguration(position: .attention, isDual: true))
        #expect([0, 1, 2, 3].map { dual.model.moe(layer: $0)?.parametersOf } == [nil, nil, nil, 1])
        #expect(try Recipe(yaml: dual.resolvedYAML()) == dual)

        let every = try Recipe(
            yaml: Fixture.good.replacing("every: 2", with: "every: 1").replacing(
                "  feed_forward_width: 128\n", with: ""),
            overrides: ["model.experts.shortcut.position=1", "model.experts.share=2"])
        #expect((0..<4).allSatisfy { every.model.moe(layer: $0)?.shortcut?.position == .output })
        #expect((0..<4).map { every.model.moe(layer: $0)?.parametersOf } == [nil, 0, nil, 2])
        #expect(try Recipe(yaml: every.resolvedYAML()) == every)
    }

    @Test("the recipes of ScMoE say what the paper has")
    func scmoe() throws {
        func mixtures(_ name: String) throws -> [MoEConfiguration] {
            let model = try Recipe(contentsOf: Fixture.folder.appendingPathComponent("\(name).yaml").path).model
            try model.checkSizes()
            return model.feedForward.compactMap { if case .moe(let moe) = $0 { moe } else { nil } }
        }
        let plain = try mixtures("scmoe")
        #expect(plain.allSatisfy { $0.shortcut == ShortcutConfiguration(position: .attention) && $0.choices == 1 })
        #expect(plain.allSatisfy { $0.sharedCombination == .gate && $0.sharedWidth == $0.width })
        let dual = try mixtures("scmoe-dg")
        #expect(dual.allSatisfy { $0.shortcut?.isDual == true && $0.choices == 1 && $0.sharedWidth == 0 })
        #expect(dual.count == 2 && dual[1].parametersOf == 1)
    }

    @Test("latent attention is read with its defaults, written, and taken away")
    func latent() throws {
        let yaml = Fixture.good.replacing(
            "  key_value_heads: 2\n",
            with:
                "  latent: {key_value_rank: 24, plain_width: 12, rotary_width: 6}\n  position: {yarn: {factor: 4, original_positions: 32}}\n"
        )
        let recipe = try Recipe(yaml: yaml)
        #expect(
            recipe.model.latent
                == LatentConfiguration(keyValueRank: 24, plainWidth: 12, rotaryWidth: 6, valueWidth: 12))
        #expect(recipe.model.yarn == YarnConfiguration(factor: 4, originalPositions: 32))
        #expect(recipe.model.headWidth == 18 && recipe.model.keyValueHeads == 4)
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        let compressed = try Recipe(
            yaml: yaml, overrides: ["model.latent.query_rank=20", "model.latent.pairing=halves"])
        #expect(compressed.model.latent?.queryRank == 20 && compressed.model.latent?.pairing == .halves)
        #expect(try Recipe(yaml: compressed.resolvedYAML()) == compressed)
        let plain = try Recipe(yaml: yaml, overrides: ["model.latent=null", "model.position.yarn=null"])
        #expect(plain.model.latent == nil && plain.model.yarn == nil && plain.model.headWidth == 16)
        let shipped = try Recipe(contentsOf: Fixture.folder.appendingPathComponent("deepseek.yaml").path).model
        #expect(shipped.latent?.queryRank == 96 && shipped.feedForward[0] == .dense(width: 384))
        #expect(HubFamily.deepseekV3.canExpress(shipped))
    }

    @Test("convolutions are read with their defaults, written, and taken away")
    func convolutions() throws {
        let yaml = Fixture.good.replacing("  key_value_heads: 2\n", with: "  convolution: {layers: [3, 0]}\n")
        let recipe = try Recipe(yaml: yaml)
        #expect(recipe.model.convolution == ConvolutionConfiguration(layers: [0, 3], width: 4))
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        let wide = try Recipe(yaml: yaml, overrides: ["model.convolution.width=7", "model.convolution.layers=[1]"])
        #expect(wide.model.convolution == ConvolutionConfiguration(layers: [1], width: 7))
        #expect(try Recipe(yaml: yaml, overrides: ["model.convolution=null"]).model.convolution == nil)
        let shipped = try Recipe(contentsOf: Fixture.folder.appendingPathComponent("hybrid.yaml").path).model
        #expect(shipped.convolution?.layers == [0, 1, 3] && shipped.mixtureLayers == [1, 3])
    }

    @Test("no experts is a dense model, and an override can make one")
    func dense() throws {
        let yaml = Fixture.good.replacing("  feed_forward_width: 128\n", with: "")
        let dense = try Recipe(yaml: yaml, overrides: ["model.experts=null", "model.feed_forward_width=256"])
        #expect(dense.model.feedForward == Array(repeating: .dense(width: 256), count: 4))
    }

    @Test("every preset reads as it is, changes by single keys, and reads back")
    func presets() throws {
        #expect(!ModelConfiguration.presetNames.isEmpty)
        for name in ModelConfiguration.presetNames {
            let preset = try ModelConfiguration.preset(named: name)
            let yaml = "model: {preset: \(name)}\ndata: {path: a, sequence_length: 64}\ntraining: {steps: 5, batch: 2}"
            let recipe = try Recipe(yaml: yaml)
            #expect(recipe.model == preset)
            #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
            let changed = try Recipe(yaml: yaml, overrides: ["model.norm_epsilon=0.5"])
            var expected = preset
            expected.normEpsilon = 0.5
            #expect(changed.model == expected)
        }
    }

    @Test("a preset shrinks with a few keys, its pattern of layers kept")
    func smallPreset() throws {
        let name = "mixtral-8x7b"
        let preset = try ModelConfiguration.preset(named: name)
        let recipe = try Recipe(
            yaml: "model: {preset: \(name)}\ndata: {path: a, sequence_length: 64}\ntraining: {steps: 5, batch: 2}",
            overrides: [
                "model.layers=2", "model.width=64", "model.heads=4", "model.key_value_heads=2",
                "model.experts.width=32",
                "model.experts.count=4", "model.experts.choices=1", "model.activation=relu",
            ])
        #expect(recipe.model.layers == 2)
        #expect(recipe.model.headWidth == 16)
        #expect(recipe.model.position == preset.position)
        #expect(recipe.model.moe(layer: 1)?.experts == 4)
        #expect(recipe.model.moe(layer: 1)?.activation == .relu)
        #expect(recipe.model.moe(layer: 1)?.router == preset.moe(layer: 0)?.router)
    }

    @Test("a byte order mark, Windows line ends and an empty group are read")
    func variants() throws {
        let recipe = try Recipe(yaml: Fixture.good)
        #expect(try Recipe(yaml: "\u{FEFF}" + Fixture.good) == recipe)
        #expect(try Recipe(yaml: Fixture.good.replacing("\n", with: "\r\n")) == recipe)
        #expect(try Recipe(yaml: Fixture.good + "\noutput:\nlayout: {}\n") == recipe)
    }

    @Test("byte counts", arguments: [("4096", 4096), ("8GiB", 8 << 30), ("1.5 MiB", 3 << 19), ("2GB", 2_000_000_000)])
    func fileBytes(_ text: String, _ count: Int) throws {
        #expect(try Recipe(yaml: Fixture.good + "\n  memory_limit: \(text)").training.memoryLimit == count)
    }

    @Test(
        "byte counts that are none",
        arguments: ["0", "-1", "8 GiBs", "1e3", ".", "9999999999TiB", "99999999999999999999"])
    func noBytes(_ text: String) {
        #expect(Fixture.complaint(Fixture.good + "\n  memory_limit: \(text)").contains("training.memory_limit is"))
    }

    @Test("the shipped recipes are accepted and read back from what they resolve to")
    func shipped() throws {
        #expect(Fixture.shipped.count >= 5)
        for path in Fixture.shipped {
            let recipe = try Recipe(contentsOf: path)
            let text = recipe.resolvedYAML()
            let again = try Recipe(yaml: text)
            #expect(again == recipe, "\(path)")
            #expect(again.resolvedYAML() == text)
        }
    }

    @Test("the dense quickstart differs in its feed-forward layers alone, which have the same active width")
    func quickstarts() throws {
        let sparse = try Recipe(contentsOf: Fixture.folder.appendingPathComponent("quickstart.yaml").path)
        var dense = try Recipe(contentsOf: Fixture.folder.appendingPathComponent("quickstart-dense.yaml").path)
        let mixture = try #require(sparse.model.moe(layer: 0))
        #expect(dense.model.feedForward == Array(repeating: .dense(width: mixture.choices * mixture.width), count: 4))
        #expect(try dense.model == .preset(named: "quickstart-dense"))
        #expect(try sparse.model == .preset(named: "quickstart"))
        dense.model.feedForward = sparse.model.feedForward
        #expect(dense == sparse)
    }
}

@Suite("Recipe files")
struct RecipeFileTests {
    @Test("what cannot be a recipe file is refused with the reason")
    func files() throws {
        let folder = try ScratchFolder()
        func complaint(_ path: String) -> String {
            do throws(Recipe.Error) {
                _ = try Recipe(contentsOf: path)
                return ""
            } catch {
                return error.description
            }
        }
        let file = folder.file("r.yaml")
        #expect(
            complaint(file) == "\(file): cannot be read (No such file or directory): give the path of a recipe file")
        #expect(complaint(folder.path).contains("is no regular file"))
        #expect(complaint("/dev/zero").contains("is no regular file"))
        try folder.write("r.yaml", Array(repeating: 0, count: 2 << 20))
        #expect(complaint(file).contains("has more than 1048576 bytes"))
        try folder.write("r.yaml", [0x61, 0x3A, 0xFF, 0xFE])
        #expect(complaint(file).contains("is not UTF-8 text"))
        try folder.write("r.yaml", Array(repeating: 0, count: 100))
        #expect(complaint(file).contains("is not"))
        try folder.write("r.yaml", text: Fixture.good)
        #expect(complaint(file) == "")
    }

    @Test("a pooled balance loss needs the whole batch at once, and layers of one size")
    func pooling() throws {
        func yaml(_ count: String, micro: Int) -> String {
            """
            model: {layers: 2, width: 32, heads: 2, experts: {count: \(count), choices: 2, width: 16, losses: {scope: pooled}}}
            data: {path: a.txt, sequence_length: 16}
            training: {steps: 10, batch: 4, micro_batch: \(micro)}
            """
        }
        let recipe = try Recipe(yaml: yaml("8", micro: 4))
        #expect(recipe.model.moe(layer: 1)?.losses.scope == .pooled)
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        let cut = Fixture.complaint(yaml("8", micro: 2))
        #expect(cut.contains("training.micro_batch") && cut.contains("use 4"), "\(cut)")
        let uneven = Fixture.complaint(yaml("[4, 8]", micro: 4))
        #expect(uneven.contains("scope: layer"), "\(uneven)")
    }
}
