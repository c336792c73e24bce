import ApusCollectives
import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// Students of a teacher that was trained and saved.
@Suite struct DistillationTests {
    private let scratch: ScratchFolder
    private let backend = CPUBackend(threadCount: 1)
    private static let model = CheckpointLayoutTests.model

    init() throws { scratch = try ScratchFolder() }

    /// A teacher of the given sizes, a few steps old.
    private func teach(_ model: ModelConfiguration = model) throws -> String {
        let folder = scratch.path + "/teacher"
        var layout = CheckpointLayoutTests.alone
        layout.model = model
        _ = try layout.run { rank in
            _ = try rank.train(1...3)
            try rank.saver(CheckpointFolder(run: folder)).save(rank.state(3))
        }
        return folder
    }

    private func student(
        _ teacher: String, _ model: ModelConfiguration = model,
        _ change: (inout DistillationConfiguration) -> Void = { _ in }
    ) -> Recipe {
        var recipe = CheckpointLayoutTests.alone.recipe
        recipe.model = model
        var distillation = DistillationConfiguration(teacher: teacher)
        change(&distillation)
        recipe.distillation = distillation
        return recipe
    }

    private func results(_ recipe: Recipe, _ steps: ClosedRange<Int>) throws -> [TrainStep.Result] {
        let trainStep = try TrainStep(recipe, backend: backend)
        let batches = LayoutCase.batches(recipe)
        return try steps.map {
            try trainStep(step: $0, batch: batches[($0 - 1) % batches.count], learningRate: 0.003)
        }
    }

    private func refusal(_ recipe: Recipe) -> DistillationError? {
        do {
            _ = try TrainStep(recipe, backend: backend)
            return nil
        } catch { return error as? DistillationError }
    }

    @Test func `a student of the teacher's weights says what it says, and one of random weights comes nearer`() throws {
        let teacher = try teach()
        let same = try results(student(teacher) { $0.start = .teacher }, 1...1)
        // Its router balances and its losses are the text's; what it says is the teacher's to the last bits.
        #expect(try #require(same[0].divergence) < 1e-6)
        let learning = try results(student(teacher) { $0.weight = 50 }, 1...60).map { try #require($0.divergence) }
        #expect(learning[0] > 1e-3 && learning[59] < 0.5 * learning[0], "\(learning)")
    }

    @Test func `after the stage the teacher rests, and the text alone is learned from`() throws {
        let teacher = try teach()
        let stopped = try results(student(teacher) { $0.until = 2 }, 1...4)
        #expect(stopped.map { $0.divergence != nil } == [true, true, false, false])
        var alone = student(teacher)
        alone.distillation = nil
        let text = try results(alone, 1...1)
        // The first loss is the text's, whoever teaches.
        #expect(stopped[0].loss == text[0].loss && text[0].divergence == nil)
        #expect(stopped[0].gradientNorm != text[0].gradientNorm)
        let decay = DistillationConfiguration(teacher: teacher, weight: 3, temperature: 2, until: 4, ending: .decay)
        #expect((1...5).map { decay.term(step: $0)?.weight } == [12, 9, 6, 3, nil])
    }

    @Test func `a student with fewer layers begins with the teacher's, spread evenly or as told`() throws {
        var large = Self.model
        large.feedForward = [
            Self.model.feedForward[0], Self.model.feedForward[0], .dense(width: 40), Self.model.feedForward[0],
        ]
        let teacher = try teach(large)
        var small = large
        small.feedForward = [large.feedForward[0], .dense(width: 40), large.feedForward[0]]
        let recipe = student(teacher, small) {
            $0.start = .teacher
            $0.layers = [1, 2, 3]
        }
        let trainStep = try TrainStep(recipe, backend: backend)
        let source = try #require(trainStep.teacher).model.store
        for parameter in trainStep.model.store.parameters {
            let name = (0..<3).reversed().reduce(parameter.name) {
                $0.replacing(".layers.\($1).", with: ".layers.\($1 + 1).")
            }
            #expect(try parameter.acquire(on: .cpu).bits == #require(source[name]).acquire(on: .cpu).bits, "\(name)")
        }
        // Evenly the second layer begins with the second, a mixture: there is no dense one to begin with.
        let error = try #require(refusal(student(teacher, small) { $0.start = .teacher }))
        #expect(
            "\(error)".contains("cannot begin with 'model.layers.1.") && "\(error)".contains("not there"), "\(error)")
        let spread = DistillationConfiguration(teacher: teacher)
        #expect(spread.sources(studentLayers: 3, teacherLayers: 4) == [0, 1, 3])
        #expect(spread.sources(studentLayers: 21, teacherLayers: 24).count == 21)
        #expect(spread.sources(studentLayers: 1, teacherLayers: 4) == [3])
    }

    @Test func `teachers that cannot teach are refused before their weights are read`() throws {
        let teacher = try teach()
        var wider = Self.model
        wider.vocabulary = 41
        #expect(refusal(student(teacher, wider)) == .vocabulary(teacher: teacher, size: 40, student: 41))
        var longer = student(teacher)
        longer.data.sequenceLength = 17
        #expect(refusal(longer) == .positions(teacher: teacher, positions: 16, sequence: 17))
        let beyond = student(teacher) {
            $0.start = .teacher
            $0.layers = [0, 1, 3]
        }
        #expect(refusal(beyond) == .noLayer(teacher: teacher, layer: 3, layers: 3))
        #expect(throws: FileError.self) { try TrainStep(student(scratch.path + "/nobody"), backend: backend) }
        var narrow = Self.model
        narrow.width = 16
        let error = try #require(refusal(student(teacher, narrow) { $0.start = .teacher }))
        #expect("\(error)".contains("distillation.start random"), "\(error)")
        #expect(refusal(student(teacher, narrow)) == nil, "a student may be narrower")
    }

    /// Vocabulary, experts and batch divided; the reference learns from the same teacher.
    @Test(arguments: [
        LayoutCase(model: model, tensor: 2, expert: .uniform(2), data: 2),
        LayoutCase(model: model, expert: .uniform(4), data: 4, zero: .gradients, microBatch: 1),
        LayoutCase(model: model, tensor: 2, data: 1, sequenceParallel: true, checkpointing: true),
    ])
    func `on many ranks a student learns what it learns on one`(_ layout: LayoutCase) throws {
        let teacher = try teach()
        var recipe = layout.recipe
        recipe.distillation = DistillationConfiguration(teacher: teacher, weight: 2, temperature: 2)
        let (taught, ranks) = (recipe, try recipe.layout(ranks: layout.ranks))
        let batches = LayoutCase.batches(recipe)
        let reference = try LayoutReference(taught, for: ranks, batches: batches, threads: 1)
        let found = try InProcess.run(ranks: ranks.ranks) { world in
            try LayoutComparison(
                taught, reference: reference, over: taught.parallel.groups(ranks, world: world), threads: 1)()
        }[0]
        let agrees = found.agrees
        #expect(agrees, "\(found.rows.prefix(3)) \(found.lossDifference)")
        let divergences = try InProcess.run(ranks: ranks.ranks) { world in
            let step = try TrainStep(
                taught, over: taught.parallel.groups(ranks, world: world), backend: CPUBackend(threadCount: 1))
            return try step(step: 1, batch: batches[0], learningRate: 0).divergence
        }
        var alone = taught
        alone.parallel = CheckpointLayoutTests.alone.parallel
        let expected = try #require(
            try TrainStep(alone, backend: backend)(step: 1, batch: batches[0], learningRate: 0).divergence)
        for divergence in divergences {
            #expect(abs(try #require(divergence) - expected) <= 1e-5 * expected)
        }
    }
}
