import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// The same steps twice: nothing between two numbers of threads, and nothing that differs goes unseen.
@Suite struct DeviceComparisonTests {
    private let scratch: ScratchFolder

    init() throws {
        scratch = try ScratchFolder()
        var generator = SeededGenerator(seed: 5)
        try scratch.write("text.txt", (0..<3000).map { _ in UInt8.random(in: 97...122, using: &generator) })
        try scratch.write(
            "data.images",
            ImageSet.file(
                height: 15, width: 1, channels: 1, labels: (0..<200).map { $0 % 10 },
                pixels: (0..<3000).map { _ in UInt8.random(in: 0...255, using: &generator) }))
    }

    private func recipe(_ training: TrainingCase = .all[0], _ change: (inout Recipe) -> Void = { _ in }) -> Recipe {
        var model = training.model
        let isText = model.patches == nil
        if isText { (model.vocabulary, model.maximumPositions) = (257, 64) }
        var configuration = training.training()
        configuration.evaluateEvery = 0
        var recipe = Recipe(
            seed: 7, model: model,
            data: DataConfiguration(path: scratch.file(isText ? "text.txt" : "data.images"), sequenceLength: 16),
            training: configuration)
        change(&recipe)
        return recipe
    }

    private func comparison(
        _ recipe: Recipe, _ change: (inout Recipe) -> Void = { _ in }
    ) throws -> DeviceComparison {
        var other = recipe
        change(&other)
        return try DeviceComparison(
            recipe, on: CPUBackend(threadCount: 1), and: CPUBackend(threadCount: 2), otherRecipe: other)
    }

    private func differences(_ comparison: DeviceComparison, steps: Int) throws -> [Double] {
        var comparison = comparison
        return try (1...steps).map { expected in
            let step = try comparison.next()
            #expect(step.step == expected && step.failure == nil)
            #expect(step.loss.reference > 0 && step.gradientNorm.reference > 0)
            return step.difference
        }
    }

    @Test(arguments: TrainingCase.all + [.pooled])
    func `another number of threads changes nothing`(_ training: TrainingCase) throws {
        #expect(try differences(comparison(recipe(training)), steps: 4) == [0, 0, 0, 0])
    }

    @Test(
        .enabled(if: Machine().hasOneDNN, "oneDNN is not available: its engine runs as the project's own kernel"),
        arguments: TrainingCase.all)
    func `products that round differently stay within what is allowed`(_ training: TrainingCase) throws {
        let engines = [CPUBackend.ProductEngine.oneDNN, .own].map { CPUBackend(threadCount: 1, productEngine: $0) }
        let found = try differences(DeviceComparison(recipe(training), on: engines[0], and: engines[1]), steps: 50)
        #expect(try #require(found.max()) < 1e-3, "\(found)")
    }

    @Test func `losses and norms are those of a run of the recipe`() throws {
        let recipe = recipe { $0.training.steps = 3 }
        let run = try TrainingRun(
            recipe, folder: "\(scratch.path)/run", resumes: false, backend: CPUBackend(threadCount: 1))
        #expect(try run.run() == .finished)
        let metrics = try #require(textFile("\(scratch.path)/run/metrics.jsonl")).split(separator: "\n")
        var comparison = try comparison(recipe)
        for line in metrics {
            let step = try comparison.next()
            #expect(line.contains("\"loss\": \(Double(step.loss.reference)),"), "\(line)")
            #expect(line.contains("\"grad_norm\": \(Double(step.gradientNorm.reference)),"), "\(line)")
        }
    }

    /// What differs in the other run, and the first step that shows it.
    static let changes: [(name: String, firstStep: Int, change: @Sendable (inout Recipe) -> Void)] = [
        ("seed", 1, { $0.seed = 8 }), ("precision", 1, { $0.training.precision = .bf16 }),
        ("rate", 2, { $0.training.optimizer.learningRate *= 1.1 }), ("clipping", 2, { $0.training.clipNorm = 0.1 }),
    ]

    @Test(arguments: changes.map(\.name))
    func `what differs is seen in the step in which it begins`(_ name: String) throws {
        let (_, firstStep, change) = try #require(Self.changes.first { $0.name == name })
        let found = try differences(comparison(recipe(), change), steps: 3)
        #expect(found.firstIndex { $0 > 1e-5 } == firstStep - 1, "\(found)")
        #expect(found.prefix(firstStep - 1).allSatisfy { $0 == 0 }, "\(found)")
    }

    @Test func `a single weight that is off is seen`() throws {
        var comparison = try comparison(recipe())
        let name = "model.layers.2.self_attn.o_proj.weight"
        let weights = try #require(comparison.other.model.store[name]).acquire(on: .cpu)
        weights.assign(weights.floats().enumerated().map { $0.offset == 7 ? $0.element + 0.1 : $0.element })
        #expect(try comparison.next().difference > 1e-5)
    }

    /// Another router's weights would send tokens elsewhere; its own choice is not taken.
    @Test(arguments: TrainingCase.all + [.pooled])
    func `a step takes the routing that it is given`(_ training: TrainingCase) throws {
        let (one, other) = (try Trainer(training, .f32), try Trainer(training, .f32, weightsSeed: 2))
        let traces = [0..<2: RoutingTrace(), 2..<4: RoutingTrace()]
        var asked: [Range<Int>] = []
        func step(_ trainer: Trainer, _ routing: TrainStep.RoutingSource?) throws -> TrainStep.Result {
            let (batch, length) = (trainer.batch(1), trainer.sequenceLength)
            return try trainer.step(step: 1, sequenceLength: length, learningRate: 0, routing: routing) {
                batch[$0.lowerBound * length..<$0.upperBound * length]
            }
        }
        let recorded = try step(one) { sequences in
            asked.append(sequences)
            return traces[sequences]
        }
        #expect(asked == [0..<2, 2..<4])
        let own = try step(other, nil)
        let replayed = try step(other) { try traces[$0]?.replay(from: one.backend, on: other.backend) }
        #expect(own.routing.layers.map(\.choices) != recorded.routing.layers.map(\.choices))
        #expect(replayed.routing.layers.map(\.choices) == recorded.routing.layers.map(\.choices))
        #expect(replayed.routing.layers.map(\.rows) == recorded.routing.layers.map(\.rows))
        #expect(replayed.loss != own.loss && replayed.loss != recorded.loss)
    }

    @Test func `a run that is not finite on one side is told of, on both it is an error`() throws {
        let name = "model.norm.weight"
        func spoil(_ trainStep: TrainStep) throws {
            let weights = try #require(trainStep.model.store[name]).acquire(on: .cpu)
            weights.assign(weights.floats().map { _ in Float.nan })
        }
        var comparison = try comparison(recipe())
        #expect(try comparison.next().difference == 0)
        try spoil(comparison.other)
        let step = try comparison.next()
        #expect(step.failure?.step == 2 && step.failure?.place.contains(name) == true)
        #expect(step.loss.difference == .infinity && step.gradientNorm.difference == .infinity)
        #expect(step.loss.reference.isFinite && step.difference == .infinity)
        var spoiled = try self.comparison(recipe())
        try spoil(spoiled.reference)
        #expect(throws: NonFiniteError.self) { try spoiled.next() }
    }

    @Test func `a text without a part to evaluate is enough`() throws {
        let recipe = recipe {
            $0.data.heldOut = 0
            $0.training.evaluateEvery = 2
        }
        #expect(try differences(comparison(recipe), steps: 2) == [0, 0])
    }

    @Test func `runs that cut the batch differently, or train something else, are refused`() throws {
        let changes: [(String, (inout Recipe) -> Void)] = [
            ("model", { $0.model.tiedEmbeddings.toggle() }), ("data", { $0.data.shuffle.toggle() }),
            ("training.batch", { $0.training.batch = 8 }), ("training.micro_batch", { $0.training.microBatch = 4 }),
            ("training.routing_group", { $0.training.routingGroup = 2 }),
        ]
        for (key, change) in changes {
            let error = #expect(throws: DeviceComparisonError.self, "\(key)") {
                try comparison(recipe(), change)
            }
            #expect(error?.keys == [key])
            #expect(error?.description.hasPrefix("\(key) differs between the two runs") == true)
        }
    }

    @Test func `a difference is a part of the reference`() {
        func difference(_ reference: Float, _ other: Float) -> Double {
            DeviceComparison.Pair(reference: reference, other: other).difference
        }
        #expect(difference(2, 2.5) == 0.25 && difference(-2, -1.5) == 0.25 && difference(0, 0) == 0)
        #expect(difference(0, 1e-30) == .infinity && difference(1, .nan) == .infinity)
        #expect(difference(.infinity, .infinity) == .infinity && difference(.nan, 1) == .infinity)
    }
}
