import ApusTraining
import Foundation
import Testing

/// One recipe that must be refused, and what the refusal must say.
struct BadRecipe: Sendable, CustomTestStringConvertible {
    /// Text of ``Fixture/good`` that is replaced.
    let old: String
    let new: String
    let expected: [String]

    init(_ old: String, _ new: String, _ expected: String...) {
        self.old = old
        self.new = new
        self.expected = expected
    }

    var testDescription: String { "\(old) -> \(new)" }

    static let cases: [BadRecipe] = [
        // Shortcuts.
        BadRecipe(
            "every: 2", "every: 1\n    shortcut: {position: 2}", "model.experts.shortcut.position is 2",
            "layer 0 has none before it", "use position: 1, or leave layer 0 dense, as experts.every: 2 does"),
        BadRecipe(
            "every: 2", "layers: [0, 2]\n    shortcut: {position: 3}", "model.experts.shortcut.position is 3",
            "use position: 1"),
        BadRecipe("every: 2", "every: 2\n    shortcut: {position: 4}", "shortcut.position is 4", "from 1 to 3"),
        BadRecipe("every: 2", "every: 2\n    shortcut: 2", "model.experts.shortcut is", "(position, dual, ...)"),
        BadRecipe("every: 2", "every: 2\n    shortcut: {source: 2}", "shortcut.source is no key", "position, dual"),
        BadRecipe(
            "every: 2", "every: 2\n    shortcut: {dual: true}\n    shared_width: 32", "shortcut.dual is true",
            "use shared_width: 0, or dual: false"),
        BadRecipe(
            "choices: 2", "choices: 5\n    shortcut: {dual: true}", "shortcut.dual is true", "use choices: 4"),
        BadRecipe(
            "every: 2", "every: 2\n    shortcut: {dual: true}\n    losses: {scope: pooled}", "shortcut.dual is true",
            "use losses.scope: layer"),
        BadRecipe(
            "every: 2", "every: 2\n    shortcut: {dual: true}\n    router: {nodes: 2}", "shortcut.dual is true",
            "take groups, nodes and annealing from the router"),
        BadRecipe(
            "every: 2", "every: 2\n    shared_combination: gate", "model.experts.shared_combination is gate",
            "set shared_width, or use sum"),
        BadRecipe(
            "every: 2", "every: 2\n    shared_combination: add\n    shared_width: 8", "shared_combination is \"add\"",
            "one of sum, gate, softmax"),
        BadRecipe(
            "every: 2", "every: 2\n    shared_combination: gate\n    shared_width: 8\n    residual: true",
            "shared_combination is gate", "use sum, or residual: false"),
        BadRecipe(
            "every: 2", "every: 2\n    share: 3", "model.experts.share is 3", "does not divide the 2 mixture",
            "the nearest that works is 2"),
        BadRecipe(
            "count: 8", "count: [4, 8]\n    share: 2", "model.experts.share is 2", "different numbers of experts"),
        BadRecipe(
            "every: 2", "every: 2\n    share: 2\n    router: {scoring: sigmoid, bias_rate: 0.01}",
            "model.experts.share is 2", "use router.bias_rate: 0, or share: 1"),
        // Keys.
        BadRecipe(
            "steps: 100", "stesp: 100", "test.yaml:17: training.stesp", "is no key of training", "did you mean steps?"),
        BadRecipe("layers: 4", "layer: 4", "model.layer is no key", "did you mean layers?", "model.layers is missing"),
        BadRecipe(
            "batch: 8", "batch: 8\n  learning_rate: 1", "training.learning_rate", "training.optimizer.learning_rate?"),
        BadRecipe("seed: 1", "xyzzy: 1", "test.yaml:1: xyzzy is no key of a recipe", "the keys are seed, model, data"),
        BadRecipe("    choices: 2", "    chioces: 2", "model.experts.chioces", "did you mean choices?"),
        BadRecipe("steps: 100", "steps: 100\n  steps: 200", "training.steps", "line 18", "more than once", "keep one"),
        BadRecipe("every: 2", "every: 2\n    width: 64", "model.experts.width", "line 13", "keep one"),
        BadRecipe(
            "  steps: 100\n", "", "test.yaml:17: training.steps is missing", "an integer is needed, for example 500"),
        BadRecipe("path: text.txt", "held_out: 0.1", "data.path is missing", "the path of a text file or folder"),
        BadRecipe("    choices: 2\n", "", "model.experts.choices is missing", "for example 2"),
        BadRecipe("  feed_forward_width: 128\n", "", "model.feed_forward_width is missing", "for example 1024"),
        BadRecipe(
            "seed: 1", "seed: 1\ndistillation:\n  weight: 2", "distillation.weight has no meaning without a teacher",
            "set distillation.teacher"),
        BadRecipe(
            "seed: 1", "seed: 1\ndistillation:\n  teacher: t\n  ending: decay", "distillation.ending has no meaning",
            "set distillation.until"),
        BadRecipe(
            "seed: 1", "seed: 1\ndistillation:\n  teacher: t\n  start: teacher\n  layers: [0, 1]",
            "distillation.layers names 2 of the teacher's layers for a student of 4", "one for each"),
        BadRecipe(
            "seed: 1", "seed: 1\ndistillation:\n  teacher: t\n  temperature: 0", "distillation.temperature is 0"),
        BadRecipe(
            "batch: 8", "batch: 8\n  start: models/a\ndistillation: {teacher: t, start: teacher}",
            "training.start has no meaning with distillation.start teacher", "keep one of them"),
        BadRecipe("steps: 100", "steps: 100\n  start: [a]", "training.start is a list", "the folder of a model"),
        // Latent attention.
        BadRecipe(
            "  key_value_heads: 2",
            "  key_value_heads: 2\n  latent: {key_value_rank: 8, plain_width: 8, rotary_width: 4}",
            "model.key_value_heads is 2", "a key and a value for each head", "use 4"),
        BadRecipe(
            "  key_value_heads: 2", "  latent: {key_value_rank: 8, plain_width: 8, rotary_width: 5}",
            "model.latent.rotary_width is 5, an odd number", "nearest that works is 6"),
        BadRecipe(
            "  key_value_heads: 2", "  latent: {key_value_rank: 8, plain_width: 250, rotary_width: 8}",
            "make heads 258 wide", "at most 248"),
        BadRecipe(
            "  key_value_heads: 2",
            "  head_width: 16\n  latent: {key_value_rank: 8, plain_width: 8, rotary_width: 4}",
            "model.head_width is 16", "use 12, or leave it out"),
        BadRecipe(
            "  key_value_heads: 2",
            "  query_key_norm: head\n  latent: {key_value_rank: 8, plain_width: 8, rotary_width: 4}",
            "model.query_key_norm is head", "use none"),
        BadRecipe(
            "  key_value_heads: 2",
            "  position: {kind: learned}\n  latent: {key_value_rank: 8, plain_width: 8, rotary_width: 4}",
            "model.position is learned", "use kind: rotary"),
        BadRecipe(
            "  key_value_heads: 2", "  latent: {plain_width: 8, rotary_width: 4}",
            "model.latent.key_value_rank is missing"),
        BadRecipe(
            "  key_value_heads: 2", "  position: {yarn: {factor: 4, original_positions: 16}}",
            "model.position.yarn is for latent attention", "set model.latent"),
        // Convolutions.
        BadRecipe(
            "  key_value_heads: 2", "  convolution: {layers: [0, 4]}", "model.convolution.layers names layer 4",
            "the model has 4 layers", "use 0 to 3"),
        BadRecipe(
            "  key_value_heads: 2", "  convolution: {layers: [1, 1]}", "names a layer twice", "name each layer once"),
        BadRecipe("  key_value_heads: 2", "  convolution: {layers: []}", "model.convolution.layers is an empty list"),
        BadRecipe("  key_value_heads: 2", "  convolution: {width: 4}", "model.convolution.layers is missing", "[0, 2]"),
        BadRecipe(
            "  key_value_heads: 2", "  convolution: {layers: [0], width: 1}", "model.convolution.width is 1",
            "from 2 to 64"),
        BadRecipe("  key_value_heads: 2", "  convolution: [0]", "model.convolution is a list", "layers, width"),
        BadRecipe(
            "  key_value_heads: 2", "  convolution: {layers: [0], taps: 4}",
            "model.convolution.taps is no key of model.convolution", "the keys are layers, width"),
        // Types.
        BadRecipe(
            "steps: 100", "steps: many",
            #"test.yaml:17: training.steps is "many": an integer is needed, for example 500"#),
        BadRecipe("steps: 100", "steps: \"100\"", "training.steps is the text \"100\" in quotes", "an integer"),
        BadRecipe("steps: 100", "steps: 1.5", "training.steps is 1.5", "an integer is needed"),
        BadRecipe("steps: 100", "steps: [1, 2]", "training.steps is a list", "an integer is needed"),
        BadRecipe("steps: 100", "steps: {a: 1}", "training.steps is a group of keys", "an integer is needed"),
        BadRecipe(
            "batch: 8", "batch: 8\n  checkpointing: maybe", "training.checkpointing is \"maybe\"", "true or false"),
        BadRecipe("batch: 8", "batch: 8\n  clip_norm: big", "training.clip_norm is \"big\"", "at least 0", "1.0"),
        BadRecipe("batch: 8", "batch: 8\n  clip_norm: .nan", "training.clip_norm is \".nan\"", "a finite one"),
        BadRecipe("batch: 8", "batch: 8\n  optimizer: {epsilon: 1e-60}", "training.optimizer.epsilon", "above 0"),
        BadRecipe("batch: 8", "batch: 8\n  optimizer: {learning_rate: 1e999}", "learning_rate", "above 0", "0.001"),
        BadRecipe(
            "batch: 8", "batch: 8\n  optimizer: adam", "training.optimizer is \"adam\"", "a group of keys", "beta1"),
        BadRecipe("batch: 8", "batch: 8\n  precision: fp16", "training.precision is \"fp16\"", "f32, bf16, bf16-pure"),
        BadRecipe("batch: 8", "batch: 8\n  precision: bf16_pure", "training.precision", "did you mean bf16-pure?"),
        BadRecipe(
            "heads: 4\n", "heads: 4\n  activation: swigul\n", "model.activation is \"swigul\"", "did you mean swiglu?"),
        BadRecipe(
            "batch: 8", "batch: 8\n  memory_limit: lots", "training.memory_limit is \"lots\"", "for example 8GiB"),
        BadRecipe("path: text.txt", "path: [a]", "data.path is a list", "the path of a text file"),
        BadRecipe("path: text.txt", "path: a\n  vocabulary: words", "data.vocabulary is \"words\"", "bytes is needed"),
        BadRecipe("count: 8", "count: {a: 1}", "model.experts.count is a group of keys", "a list of integers"),
        // Ranges.
        BadRecipe("steps: 100", "steps: 0", "training.steps is 0", "from 1 to", "the nearest is 1"),
        BadRecipe("steps: 100", "steps: 99999999999999999999", "training.steps", "the nearest is 1000000000"),
        BadRecipe("seed: 1", "seed: -4", "test.yaml:1: seed is -4", "the nearest is 0"),
        BadRecipe("count: 8", "count: 1025", "model.experts.count is 1025", "the nearest is 1024"),
        BadRecipe("width: 64", "width: 0", "model.width is 0", "the nearest is 1"),
        BadRecipe("path: text.txt", "path: a\n  held_out: 1", "data.held_out is 1", "below 1", "0.05"),
        BadRecipe(
            "batch: 8", "batch: 8\n  optimizer: {beta2: 1.0}", "training.optimizer.beta2 is 1.0", "below 1", "0.95"),
        BadRecipe("batch: 8", "batch: 8\n  optimizer: {weight_decay: -0.1}", "weight_decay is -0.1", "at least 0"),
        BadRecipe(
            "every: 2", "every: 2\n    policy: {capacity: inf}", "model.experts.policy.capacity is \"inf\"", "finite",
            "1.25"),
        BadRecipe("every: 2", "every: 2\n    policy: {evaluation: 2}", "policy.capacity is missing", "a number"),
        BadRecipe("every: 2", "every: 2\n    dropout: 1", "model.experts.dropout is 1", "below 1"),
        BadRecipe("heads: 4\n", "heads: 4\n  initial_scale: 0\n", "model.initial_scale is 0", "above 0"),
        BadRecipe("every: 2", "every: 2\n    router: {jitter: 1}", "model.experts.router.jitter is 1", "below 1"),
        BadRecipe(
            "heads: 4\n", "heads: 4\n  vocabulary: 256\n", "model.vocabulary is 256", "257 tokens", "at least 257"),
        // Combinations.
        BadRecipe(
            "key_value_heads: 2", "key_value_heads: 3", "model.key_value_heads is 3", "divide heads 4", "works is 2"),
        BadRecipe("width: 64", "width: 66", "model.width is 66", "no multiple of heads 4", "works is 64"),
        BadRecipe("width: 64", "width: 60", "model.width makes heads 15 wide, an odd number", "head_width of 16"),
        BadRecipe("heads: 4\n", "heads: 4\n  head_width: 7\n", "model.head_width is 7", "odd", "head_width of 8"),
        BadRecipe("choices: 2", "choices: 9", "model.experts.choices is 9", "the 8 experts", "at most 8"),
        BadRecipe("count: 8", "count: [8, 1]", "model.experts.choices is 2", "the 1 experts", "at most 1"),
        BadRecipe(
            "count: 8", "count: [8, 8, 8]", "model.experts.count lists 3", "for 2 mixture-of-experts layers", "list 2"),
        BadRecipe(
            "every: 2", "every: 2\n    bank: padded", "model.experts.bank is padded", "needs a capacity", "grouped"),
        BadRecipe("every: 2", "every: 2\n    router: {bias_rate: 0.1}", "bias_rate is 0.1", "softmax-top-k", "sigmoid"),
        BadRecipe(
            "every: 2", "every: 2\n    bank: block-sparse\n    block_size: 1\n    dropout: 0.1",
            "model.experts.dropout is 0.1", "block-sparse", "bank: grouped"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {groups: {count: 3, chosen: 1}}",
            "model.experts.router.groups.count is 3",
            "do not divide 8 experts", "works is"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {groups: {count: 8, chosen: 1}}", "too few for 2 choices", "at least 2"),
        BadRecipe("every: 2", "every: 2\n    router: {groups: {count: 4}}", "groups.chosen is missing", "integer"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {cosine: {temperature: 0.01}}", "cosine.floor is 0.01", "below 0.01"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {nodes: 3}", "model.experts.router.nodes is 3", "do not divide 8",
            "works is"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {nodes: 2, scoring: sigmoid}", "nodes are chosen by a softmax",
            "softmax-top-k"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {nodes: 2, cosine: {}}", "beside which cosine cannot stand", "keep one"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {nodes: 2}\n    losses: {scope: pooled}", "each of its levels",
            "scope: layer"),
        BadRecipe("every: 2", "every: 2\n    router: {annealing: {}}", "annealing.steps is missing", "1000"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {annealing: {steps: 9, end: 3}}", "annealing.end is 3", "above start 2"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {annealing: {steps: 101}}",
            "test.yaml:13: model.experts.router.annealing.steps is 101", "more than training.steps 100",
            "use at most 100, or training.steps of at least 101"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {scoring: sigmoid, annealing: {steps: 9}}",
            "model.experts.router.annealing is a softmax", "softmax-top-k"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {gumbel: true, annealing: {steps: 9}}", "noise of its own",
            "gumbel: false"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {groups: {count: 2, chosen: 1}, annealing: {steps: 9}}",
            "begins with all experts", "keep one of them"),
        BadRecipe(
            "every: 2", "every: 2\n    router: {annealing: {steps: 9}}\n    losses: {scope: pooled}",
            "model.experts.losses have scope pooled", "scope: layer"),
        BadRecipe("every: 2", "layers: [1, 4]", "model.experts.layers names layer 4", "4 layers", "use 0 to 3"),
        BadRecipe("every: 2", "layers: [1, 1]", "model.experts.layers names a layer twice", "once"),
        BadRecipe("every: 2", "layers: []", "model.experts.layers is an empty list", "dense model"),
        BadRecipe("every: 2", "every: 2\n    layers: [1]", "model.experts.every", "keep one of them"),
        BadRecipe("every: 2", "every: 5", "model.experts.every is 5", "none of the 4 layers", "at most 4"),
        BadRecipe("every: 2", "every: 1", "model.feed_forward_width has no meaning", "remove it"),
        BadRecipe(
            "every: 2", "every: 2\n    policy: droples", "model.experts.policy is \"droples\"", "dropless or a group"),
        BadRecipe("heads: 4\n", "heads: 4\n  position: {kind: learned, theta: 1}\n", "model.position.theta", "learned"),
        BadRecipe("heads: 4\n", "heads: 4\n  maximum_positions: 64\n", "model.maximum_positions is 64", "at least 128"),
        BadRecipe(
            "heads: 4\n", "heads: 4\n  preset: mixtral-8x7c\n", "model.preset is \"mixtral-8x7c\"",
            "did you mean mixtral-8x7b?"),
        BadRecipe(
            "batch: 8", "batch: 8\n  micro_batch: 3", "training.micro_batch is 3", "divide batch 8", "works is 2"),
        BadRecipe("batch: 8", "batch: 8\n  micro_batch: 16", "training.micro_batch is 16", "works is 8"),
        BadRecipe(
            "batch: 8", "batch: 8\n  routing_group: 3", "training.batch is 8", "no multiple of routing_group 3", "is 9"),
        BadRecipe(
            "batch: 8", "batch: 8\n  routing_group: 4\n  micro_batch: 2", "training.micro_batch is 2",
            "routing_group 4",
            "works is 4"),
        BadRecipe(
            "batch: 8", "batch: 8\n  routing_group: 2\n  balance_group: 5", "training.balance_group is 5", "works is 4"),
        BadRecipe(
            "batch: 8", "batch: 8\n  schedule: {kind: cosine, warmup_steps: 200}",
            "training.schedule.warmup_steps is 200",
            "use at most 100"),
        BadRecipe(
            "batch: 8", "batch: 8\n  schedule: {final_fraction: 0.5}", "final_fraction has no meaning", "constant"),
        BadRecipe(
            "batch: 8", "batch: 8\n  schedule: {kind: cosine, decay_steps: 5}", "decay_steps has no meaning",
            "remove it"),
        BadRecipe(
            "batch: 8", "batch: 8\n  schedule: {kind: constant-then-decay, warmup_steps: 60, decay_steps: 50}",
            "training.schedule.decay_steps is 50", "use at most 40"),
        BadRecipe(
            "path: text.txt", "path: a\n  held_out: 0\ntraining2:\n", "training2", "did you mean training?"),
        BadRecipe(
            "batch: 8", "batch: 8\nlayout: {pipeline: 2}", "layout.pipeline is 2", "this build has no pipelines",
            "use 1"),
        BadRecipe("heads: 4\n", "heads: 4\n  preset: 12345678901\n", "model.preset is", "presets are tiny, quickstart"),
        BadRecipe(
            "heads: 4\n", "heads: 4\n  preset: ted-6.7b-2000\n", "feed_forward[1].experts is 2000", "from 1 to 1024"),
        BadRecipe(
            "heads: 4\n", "heads: 4\n  preset: ted-6.7b-0\n", "preset is \"ted-6.7b-0\"", "feed_forward[1].experts is 0"
        ),
        // YAML itself.
        BadRecipe("seed: 1", "seed: [1", "test.yaml:", "is not YAML", "closing quotes and brackets"),
        BadRecipe("  layers: 4", "\tlayers: 4", "test.yaml:3", "indent with spaces"),
        BadRecipe("seed: 1", "seed: &a 1", "test.yaml:1: seed has an anchor", "write the value out"),
        BadRecipe("seed: 1", "seed: *a", "test.yaml:1", "no anchors and aliases"),
        BadRecipe("seed: 1", "seed: !!int 1", "test.yaml:1: seed has the tag", "remove it"),
        BadRecipe("seed: 1", "seed: 1\n---\nseed: 2", "test.yaml:", "second document", "keep one"),
        BadRecipe("seed: 1", "? [a]\n: 1", "test.yaml:1", "no plain word", "before a colon"),
        BadRecipe("seed: 1", "seed: \"\u{1}\"", "test.yaml:1", "is not text", "UTF-8"),
    ]
}

@Suite("Recipes that are refused")
struct BadRecipeTests {
    @Test("the refusal names the key, the reason and what works", arguments: BadRecipe.cases)
    func refused(_ bad: BadRecipe) {
        #expect(Fixture.good.contains(bad.old))
        let first = Fixture.good.range(of: bad.old)
        let yaml = first.map { Fixture.good.replacingCharacters(in: $0, with: bad.new) } ?? ""
        let complaint = Fixture.complaint(yaml)
        for words in bad.expected { #expect(complaint.contains(words), "\(complaint)") }
    }

    @Test("the recipe that the cases change is itself accepted")
    func good() { #expect(Fixture.complaint(Fixture.good) == "") }

    @Test(
        "nothing, comments alone, a list and a word are no recipe",
        arguments: ["", "# nothing\n", "- a\n", "word", "---\n...\n"])
    func noRecipe(_ yaml: String) {
        let complaint = Fixture.complaint(yaml)
        #expect(complaint.hasPrefix("test.yaml:"))
        #expect(complaint.contains("recipe"))
    }

    @Test("up to ten problems are told at once, and the rest counted")
    func many() throws {
        let several = Fixture.good.replacing("layers: 4", with: "layers: x").replacing("batch: 8", with: "batch: y")
        #expect(Fixture.complaint(several).split(separator: "\n").count == 2)
        let keys = (0..<25).map { "unknown_key_\($0): 1" }.joined(separator: "\n")
        let error = #expect(throws: Recipe.Error.self) { try Recipe(yaml: Fixture.good + "\n" + keys) }
        #expect(error?.findings.count == 10)
        #expect(error?.omitted == 15)
        #expect(error?.description.hasSuffix("and 15 more") == true)
    }

    @Test("evaluation needs held-out text")
    func heldOut() {
        let yaml = Fixture.good.replacing("path: text.txt", with: "path: a\n  held_out: 0")
        #expect(Fixture.complaint(yaml) == "")
        let complaint = Fixture.complaint(yaml + "\n  evaluate_every: 10")
        #expect(complaint.contains("training.evaluate_every is 10, but data.held_out keeps no text: use 0"))
    }

    @Test("a micro-batch that is too large to be read at once is refused, a batch is not")
    func microBatchTokens() {
        let sizes = ["data.sequence_length=131072", "training.batch=1048576"]
        let complaint = Fixture.complaint(Fixture.good, overrides: sizes + ["training.micro_batch=4096"])
        #expect(complaint.contains("training.micro_batch is 4096, with data.sequence_length 131072 more than 268435"))
        #expect(complaint.contains("use at most 2048"))
        #expect(Fixture.complaint(Fixture.good, overrides: sizes + ["training.micro_batch=2048"]) == "")
    }

    @Test("more routed rows than 32 bits can number are refused")
    func rows() {
        let complaint = Fixture.complaint(
            Fixture.good,
            overrides: [
                "data.sequence_length=1048576", "training.batch=1048576", "training.micro_batch=256",
                "model.experts.count=16", "model.experts.choices=16",
            ])
        #expect(complaint.contains("training.micro_batch is 256"))
        #expect(complaint.contains("use at most 127"))
    }

    @Test("a model beyond all bounds is refused though each of its sizes is in order")
    func size() {
        let complaint = Fixture.complaint(
            Fixture.good,
            overrides: [
                "model.layers=1024", "model.width=65536", "model.heads=256", "model.experts.count=1024",
                "model.experts.width=1048576",
            ])
        #expect(complaint.contains("model cannot be built, because model is about"))
        #expect(complaint.contains("are possible: lower 'width'"))
    }
}
