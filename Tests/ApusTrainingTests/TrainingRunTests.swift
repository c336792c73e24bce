import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// Runs from recipe to files: going on, refusing, and what they say when a number is none or memory is gone.
@Suite struct TrainingRunTests {
    private let scratch: ScratchFolder
    private var folder: String { "\(scratch.path)/run" }

    init() throws {
        scratch = try ScratchFolder()
        var generator = SeededGenerator(seed: 5)
        try scratch.write("text.txt", (0..<3000).map { _ in UInt8.random(in: 97...122, using: &generator) })
    }

    private func recipe(steps: Int = 4, _ change: (inout Recipe) -> Void = { _ in }) -> Recipe {
        var model = TrainingCase.all[0].model
        model.vocabulary = 257
        model.maximumPositions = 64
        var recipe = Recipe(
            seed: 7, model: model, data: DataConfiguration(path: "\(scratch.path)/text.txt", sequenceLength: 16),
            training: TrainingConfiguration(steps: steps, batch: 2, precision: .f32, evaluateEvery: 0),
            output: OutputConfiguration(saveEvery: 2, keep: 2, logEvery: 0))
        change(&recipe)
        return recipe
    }

    @discardableResult
    private func run(_ recipe: Recipe, resumes: Bool = false) throws -> TrainingRun {
        let run = try TrainingRun(recipe, folder: folder, resumes: resumes, backend: CPUBackend(threadCount: 1))
        #expect(try run.run() == .finished)
        return run
    }

    private func message(_ recipe: Recipe, resumes: Bool = true) -> String {
        do {
            _ = try TrainingRun(recipe, folder: folder, resumes: resumes, backend: CPUBackend(threadCount: 1)).run()
            return ""
        } catch {
            return "\(error)"
        }
    }

    @Test func `a run leaves metrics, its recipe and checkpoints, and goes on where it stood`() throws {
        try run(recipe())
        #expect(folderNames(folder) == ["checkpoints", "metrics.jsonl", "recipe.yaml", "tensorboard"])
        #expect(folderNames("\(folder)/checkpoints") == ["step-00000002", "step-00000004"])
        let written = try #require(textFile("\(folder)/recipe.yaml"))
        #expect(try Recipe(yaml: written) == recipe())
        let resumed = try run(recipe(steps: 6), resumes: true)
        #expect(resumed.stepsTaken == 6)
        #expect(try #require(textFile("\(folder)/metrics.jsonl")).split(separator: "\n").count == 6)
        let twice = try TrainingRun(
            recipe(steps: 6), folder: folder, resumes: true, backend: CPUBackend(threadCount: 1))
        #expect(twice.stepsTaken == 6)
        #expect(try twice.run() == .finished)
    }

    @Test func `a run that stands is not overwritten, and none is not resumed`() throws {
        #expect(message(recipe()).contains("'\(folder)' holds no checkpoint"))
        try run(recipe())
        #expect(message(recipe(), resumes: false).contains("'\(folder)' holds a run already"))
    }

    static let changes: [(key: String, change: @Sendable (inout Recipe) -> Void)] = [
        ("seed", { $0.seed = 8 }), ("data.sequence_length", { $0.data.sequenceLength = 32 }),
        ("data.held_out", { $0.data.heldOut = 0.5 }), ("data.shuffle", { $0.data.shuffle = false }),
        ("data.document_mask", { $0.data.documentMask = true }),
        ("training.batch", { ($0.training.batch, $0.training.microBatch) = (4, 4) }),
        ("training.precision", { $0.training.precision = .bf16 }),
        ("training.routing_group", { $0.training.routingGroup = 2 }),
        ("training.balance_group", { $0.training.balanceGroup = 2 }),
        ("\"tied_embeddings\"", { $0.model.tiedEmbeddings.toggle() }), ("\"heads\"", { $0.model.heads = 4 }),
    ]

    @Test(arguments: changes.map(\.key))
    func `a resumed run is the run that began`(_ key: String) throws {
        try run(recipe())
        let change = try #require(Self.changes.first { $0.key == key }).change
        let text = message(recipe(steps: 6, change))
        #expect(text.contains(key) && text.contains("resume with the recipe it began with"), "\(text)")
        #expect(folderNames("\(folder)/checkpoints") == ["step-00000002", "step-00000004"])
    }

    @Test func `rates, clipping, micro-batches and output may change`() throws {
        try run(recipe())
        let changed = recipe(steps: 6) {
            $0.training.optimizer.learningRate = 1e-4
            $0.training.clipNorm = 0.5
            $0.training.microBatch = 1
            $0.output.saveEvery = 0
            $0.output.keep = 1
        }
        #expect(try run(changed, resumes: true).stepsTaken == 6)
        #expect(folderNames("\(folder)/checkpoints") == ["step-00000006"])
    }

    @Test func `another text is refused`() throws {
        try run(recipe())
        try scratch.write("text.txt", Array(repeating: 97, count: 3000))
        #expect(message(recipe(steps: 6)).contains("is not the text that the run began with"))
    }

    @Test func `a damaged checkpoint costs the steps since the one before, and the run ends the same`() throws {
        let whole = try run(recipe(steps: 6))
        let expected = whole.model.store.groups.map(\.weights.bits)
        let metrics = try #require(textFile("\(folder)/metrics.jsonl")).split(separator: "\n").count
        let file = "run/checkpoints/step-00000006/model.safetensors"
        var content = try fileBytes("\(scratch.path)/\(file)")
        content[content.count - 1] ^= 1
        try scratch.write(file, content)
        let again = try run(recipe(steps: 6), resumes: true)
        #expect(again.model.store.groups.map(\.weights.bits) == expected)
        #expect(try #require(textFile("\(folder)/metrics.jsonl")).split(separator: "\n").count == metrics)
        #expect(try fileBytes("\(scratch.path)/\(file)") != content)
    }

    /// A weight and what is to be named: itself, for weights are looked at first.
    @Test(arguments: [
        "model.embed_tokens.weight", "model.layers.2.mlp.experts.3.down_proj.weight", "model.norm.weight",
    ])
    func `a weight that is no number stops the step, is named, and harms no checkpoint`(_ name: String) throws {
        try run(recipe())
        let good = try fileBytes("\(folder)/checkpoints/step-00000004/model.safetensors")
        let run = try TrainingRun(recipe(steps: 6), folder: folder, resumes: true, backend: CPUBackend(threadCount: 1))
        let weights = try #require(run.model.store[name]).acquire(on: .cpu)
        weights.assign(weights.floats().map { _ in Float.nan })
        let error = #expect(throws: NonFiniteError.self) { try run.run() }
        #expect(error?.step == 5)
        #expect(error?.place == "\(weights.count) weights of \(name)")
        #expect(folderNames("\(folder)/checkpoints") == ["step-00000002", "step-00000004"])
        #expect(try fileBytes("\(folder)/checkpoints/step-00000004/model.safetensors") == good)
        #expect(try self.run(recipe(steps: 6), resumes: true).stepsTaken == 6)
    }

    /// Finite weights so large that a product of them is not, and the first stage that shows it.
    @Test(arguments: [
        ("model.layers.0.self_attn.o_proj.weight", Float(3e38), "the attention of layer 0"),
        ("model.layers.1.mlp.down_proj.weight", 3e38, "the feed-forward part of layer 1"),
        ("model.layers.2.self_attn.v_proj.weight", 3e38, "the attention of layer 2"),
        ("lm_head.weight", 3e38, "the logits"),
    ])
    func `the first stage that overflows is named`(_ name: String, _ value: Float, _ place: String) throws {
        let run = try TrainingRun(recipe(), folder: folder, resumes: false, backend: CPUBackend(threadCount: 1))
        let weights = try #require(run.model.store[name]).acquire(on: .cpu)
        weights.assign(weights.floats().enumerated().map { $0.offset % 2 == 0 ? value : -value })
        let before = run.model.store.groups.map(\.weights.bits)
        let error = #expect(throws: NonFiniteError.self) { try run.run() }
        #expect(error?.place == place)
        #expect(error?.description.contains(place) == true)
        #expect(run.model.store.groups.map(\.weights.bits) == before, "the step was not taken")
        #expect(folderNames("\(folder)/checkpoints").isEmpty)
    }

    @Test func `too high a rate ends with the name of a stage and a checkpoint that loads`() throws {
        let wild = recipe(steps: 40) {
            $0.training.optimizer.learningRate = 1e30
            $0.training.clipNorm = 0
        }
        let text = message(wild, resumes: false)
        #expect(text.contains("first seen in the ") && text.contains("learning_rate"), "\(text)")
    }

    @Test func `too little memory is told with the request, what is held and a key to lower`() throws {
        let backend = CPUBackend(threadCount: 1, memoryLimit: 900_000)
        let error = #expect(throws: TensorError.self) {
            try TrainingRun(recipe(), folder: folder, resumes: false, backend: backend).run()
        }
        let text = "\(try #require(error))"
        #expect(text.hasPrefix("out of memory: ") && text.contains("asked for "), "\(text)")
        #expect(text.contains("parameters ") && text.contains(" allowed"), "\(text)")
        #expect(text.contains("Lower ") && text.contains("model."), "\(text)")
    }

    @Test func `text shorter than a sequence is refused, training and held-out part alike`() throws {
        try scratch.write("text.txt", Array(repeating: 97, count: 12))
        #expect(message(recipe(), resumes: false).contains("of training text"))
        try scratch.write("text.txt", Array(repeating: 97, count: 100))
        let evaluated = recipe { $0.training.evaluateEvery = 1 }
        #expect(message(evaluated, resumes: false).contains("of held-out text"))
    }

    @Test func `evaluation sees held-out text, the same every time`() throws {
        let run = try run(recipe { $0.training.evaluateEvery = 2 })
        let lines = try #require(textFile("\(folder)/metrics.jsonl")).split(separator: "\n")
        #expect(lines.map { $0.contains("held_out_loss") } == [false, true, false, true])
        #expect(run.stepsTaken == 4)
    }
}
