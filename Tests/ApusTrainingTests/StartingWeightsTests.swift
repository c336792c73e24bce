import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// Runs that begin with the weights of a stored model.
@Suite struct StartingWeightsTests {
    private let scratch: ScratchFolder
    private let backend = CPUBackend(threadCount: 1)
    private static let model = CheckpointLayoutTests.model

    init() throws { scratch = try ScratchFolder() }

    /// A run of three steps, saved.
    private func train(_ precision: Precision = .f32) throws -> String {
        let folder = scratch.path + "/first"
        var layout = CheckpointLayoutTests.alone
        layout.precision = precision
        _ = try layout.run { rank in
            _ = try rank.train(1...3)
            try rank.saver(CheckpointFolder(run: folder)).save(rank.state(3))
        }
        return folder
    }

    private func recipe(_ start: String?, _ model: ModelConfiguration = model, _ precision: Precision = .f32) -> Recipe
    {
        var recipe = CheckpointLayoutTests.alone.recipe
        recipe.model = model
        recipe.training.precision = precision
        recipe.training.start = start
        return recipe
    }

    @Test(arguments: [Precision.f32, .bf16])
    func `a step begins with the stored weights, whatever the seed`(_ precision: Precision) throws {
        let folder = try train(precision)
        var recipe = recipe(folder, Self.model, precision)
        recipe.seed = 77
        // How it is trained from now on is the recipe's own.
        recipe.model.feedForward = recipe.model.feedForward.map { part in
            guard case .moe(var moe) = part else { return part }
            moe.losses.balance = 0.5
            moe.policy = .capacity(factor: 1.25, minimum: 1, order: .position)
            return .moe(moe)
        }
        let step = try TrainStep(recipe, backend: backend)
        let stored = try ModelFolder(CheckpointFolder(run: folder).folder(step: 3)).load(backend: backend)
        for parameter in step.model.store.parameters {
            let expected = try #require(stored.store[parameter.name]).acquire(on: .cpu)
            expectSameBits(try parameter.acquire(on: .cpu), expected, parameter.name)
        }
        // The optimizer's own copy of them too: a step moves each weight by little.
        _ = try step(step: 1, batch: LayoutCase.batches(recipe)[0], learningRate: 1e-6)
        for parameter in step.model.store.parameters {
            let (now, was) = (
                try parameter.acquire(on: .cpu).floats(),
                try #require(stored.store[parameter.name]).acquire(on: .cpu).floats()
            )
            #expect(zip(now, was).allSatisfy { abs($0 - $1) <= 1e-4 * (1 + abs($1)) }, "\(parameter.name)")
        }
    }

    @Test func `many ranks begin with the same as one`() throws {
        let folder = try train()
        var recipe = LayoutCase(model: Self.model, tensor: 2, expert: .uniform(2), data: 2).recipe
        recipe.training.start = folder
        let taught = recipe
        let ranks = try taught.layout(ranks: 4)
        let batches = LayoutCase.batches(taught)
        let losses = try InProcess.run(ranks: ranks.ranks) { world in
            let step = try TrainStep(
                taught, over: taught.parallel.groups(ranks, world: world), backend: CPUBackend(threadCount: 1))
            return try step(step: 1, batch: batches[0], learningRate: 0).loss
        }
        func alone(_ start: String?) throws -> Float {
            let step = try TrainStep(self.recipe(start), backend: backend)
            return try step(step: 1, batch: batches[0], learningRate: 0).loss
        }
        let (expected, drawn) = (try alone(folder), try alone(nil))
        for loss in losses { #expect(abs(loss - expected) <= 1e-5 * expected) }
        #expect(abs(drawn - expected) > 1e-3)
    }

    @Test func `another model is refused by its first difference, and a missing one by name`() throws {
        let folder = try train()
        func refusal(_ change: (inout MoEConfiguration) -> Void) throws -> StartError? {
            var model = Self.model
            guard case .moe(var moe) = model.feedForward[0] else { return nil }
            change(&moe)
            model.feedForward[0] = .moe(moe)
            do {
                _ = try TrainStep(recipe(folder, model), backend: backend)
                return nil
            } catch { return error as? StartError }
        }
        #expect(
            try refusal { $0.experts = 5 }
                == .different(folder: folder, key: "feed_forward[0].experts", stored: "4", asked: "5"))
        #expect(
            try refusal { $0.choices = 1 }
                == .different(folder: folder, key: "feed_forward[0].choices", stored: "2", asked: "1"))
        #expect(throws: FileError.notFound(path: "/nonexistent")) {
            _ = try TrainStep(recipe("/nonexistent"), backend: backend)
        }
    }

    @Test func `a recipe for what a model became reads back, unless no recipe describes it`() throws {
        var base = try Recipe(yaml: Fixture.good)
        base.distillation = DistillationConfiguration(teacher: "t", start: .teacher, layers: [0, 1, 2, 3])
        var pruned = base.model
        for (layer, experts) in [(1, 5), (3, 8)] {
            guard case .moe(var moe) = pruned.feedForward[layer] else { continue }
            moe.experts = experts
            pruned.feedForward[layer] = .moe(moe)
        }
        let successor = try #require(base.successor(training: pruned, from: "models/new"))
        #expect(successor.training.start == "models/new" && successor.model == pruned)
        #expect(successor.distillation == DistillationConfiguration(teacher: "t"))
        var uneven = pruned
        guard case .moe(var moe) = uneven.feedForward[1] else { return }
        moe.width += 8
        uneven.feedForward[1] = .moe(moe)
        #expect(base.successor(training: uneven, from: "models/new") == nil)
    }

    @Test func `the recipe of a model is the one beside it, or its run's`() throws {
        let recipe = try Recipe(yaml: Fixture.good)
        let checkpoint = "\(scratch.path)/run/checkpoints/step-00000003"
        try RunFolder.create(checkpoint)
        #expect(try Recipe(ofModel: checkpoint) == nil)
        _ = try scratch.write("run/recipe.yaml", text: recipe.resolvedYAML())
        #expect(try Recipe(ofModel: checkpoint) == recipe)
        var other = recipe
        other.seed = 5
        _ = try scratch.write("run/checkpoints/step-00000003/recipe.yaml", text: other.resolvedYAML())
        #expect(try Recipe(ofModel: checkpoint) == other)
        #expect(try Recipe(ofModel: "\(scratch.path)/run/checkpoints") == nil)
    }
}
