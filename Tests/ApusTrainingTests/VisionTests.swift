import ApusData
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// Recipes of encoders, and runs of them on images.
@Suite struct VisionTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private static func yaml(_ path: String = "a.images", _ more: String = "") -> String {
        """
        seed: 4
        model:
          patches: {height: 8, width: 8, size: 4, classes: 4}
          layers: 2
          width: 32
          heads: 2
          norm: layer
          activation: gelu
          feed_forward_width: 64
          experts:
            every: 2
            count: 4
            choices: 2
            width: 32
            policy: {capacity: 1.05, minimum: 2, order: importance}
            bank: padded
            losses: {balance: 0.01}
        data:
          path: \(path)
          held_out: 0.2
        training:
          steps: 120
          batch: 32
          precision: f32
          routing_group: 32
          evaluate_every: 120
          evaluate_batches: 2
          optimizer: {learning_rate: 0.005}
        output: {save_every: 60, keep: 3, log_every: 0}
        \(more)
        """
    }

    /// Images of four classes: a bright quarter on a dark ground, both with noise.
    static func quarters(_ count: Int, seed: UInt64) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        let labels = (0..<count).map { _ in Int.random(in: 0..<4, using: &generator) }
        let pixels = labels.flatMap { label in
            (0..<64).map { place -> UInt8 in
                let isBright = place / 32 == label / 2 && place % 8 / 4 == label % 2
                return UInt8.random(in: isBright ? 110...255 : 0...140, using: &generator)
            }
        }
        return ImageSet.file(height: 8, width: 8, channels: 1, labels: labels, pixels: pixels)
    }

    private func complaint(_ yaml: String, _ overrides: String...) -> String {
        do throws(Recipe.Error) {
            _ = try Recipe(yaml: yaml, overrides: overrides)
            return ""
        } catch {
            return error.description
        }
    }

    @Test func `a recipe of images is read with what follows from its patches, and written`() throws {
        let recipe = try Recipe(yaml: Self.yaml())
        #expect(recipe.model.patches == PatchConfiguration(height: 8, width: 8, channels: 1, size: 4))
        #expect(recipe.model.vocabulary == 4 && recipe.model.maximumPositions == 5)
        #expect(recipe.data.sequenceLength == 5 && recipe.model.position == .learned)
        #expect(try Recipe(yaml: recipe.resolvedYAML()) == recipe)
        let shipped = try Recipe(contentsOf: "\(try #require(repositoryRoot()))/Recipes/vision.yaml")
        #expect(shipped.model.patches?.tokens == 17 && shipped.model.mixtureLayers == [1, 3])
    }

    @Test func `what an encoder of images has not is refused by its key`() {
        let yaml = Self.yaml()
        #expect(complaint(yaml).isEmpty)
        #expect(complaint(yaml, "model.patches.size=3").contains("model.patches.height is 8"))
        #expect(complaint(yaml, "model.patches.size=3").contains("the nearest that works is 9"))
        #expect(complaint(yaml, "model.patches.classes=").contains("model.patches.classes is missing"))
        #expect(complaint(yaml, "model.vocabulary=5").contains("model.patches.classes is 4"))
        #expect(complaint(yaml, "model.maximum_positions=64").contains("make 5 tokens of an image"))
        #expect(complaint(yaml, "data.sequence_length=64").contains("make 5 tokens of an image"))
        #expect(complaint(yaml, "data.document_mask=true").contains("images have no documents"))
        #expect(complaint(yaml, "model.position.kind=rotary").contains("use kind: learned"))
        #expect(complaint(yaml, "model.tied_embeddings=true").contains("model.tied_embeddings is true"))
        #expect(complaint(yaml, "model.sliding_window=4").contains("model.sliding_window is set"))
        #expect(complaint(yaml, "model.patches=null").contains("data.sequence_length is missing"))
        #expect(complaint(yaml, "model.patches.colour=3").contains("model.patches.colour is no key"))
    }

    @Test func `tokens of images are not divided over ranks`() throws {
        var recipe = try Recipe(yaml: Self.yaml())
        recipe.parallel.layout.tensor = 2
        recipe.parallel.sequenceParallel = true
        #expect(throws: (any Error).self) { try recipe.layout(ranks: 2) }
        recipe.parallel.sequenceParallel = false
        #expect(try recipe.layout(ranks: 2).tensor == 2)
    }

    private func run(_ recipe: Recipe, _ name: String, resumes: Bool = false) throws -> TrainingRun {
        let run = try TrainingRun(
            recipe, folder: scratch.file(name), resumes: resumes, backend: CPUBackend(threadCount: 2))
        #expect(try run.run() == .finished)
        return run
    }

    @Test func `a few steps teach it to tell classes, and a resumed run goes on to the bit`() throws {
        let path = try scratch.write("a.images", Self.quarters(400, seed: 1))
        let recipe = try Recipe(yaml: Self.yaml(path))
        let straight = try run(recipe, "straight")
        let heldOut = try TrainingData(recipe).heldOut
        let step = try TrainStep(recipe, backend: CPUBackend(threadCount: 2))
        let before = try step.evaluate(try #require(heldOut), batches: 2)
        // Chance is log 4 = 1.386.
        #expect(before > 1)
        let text = try #require(textFile("\(scratch.file("straight"))/metrics.jsonl"))
        let last = try #require(text.split(separator: "\n").last)
        let key = "\"held_out_loss\": "
        let place = try #require(last.firstRange(of: key), "\(last)")
        let after = try #require(Double(last[place.upperBound...].prefix { $0 != "," && $0 != "}" }))
        #expect(after < 0.1)

        var half = recipe
        half.training.steps = 60
        half.training.schedule = recipe.training.schedule
        _ = try run(half, "cut")
        let resumed = try run(recipe, "cut", resumes: true)
        #expect(resumed.stepsTaken == 120)
        for (left, right) in zip(resumed.model.store.parameters, straight.model.store.parameters) {
            let tensors = try [left, right].map { try $0.acquire(on: .cpu) }
            expectSameBits(tensors[0], tensors[1], left.name)
        }
    }

    @Test func `images of another size, of too many classes, or none are refused`() throws {
        let path = try scratch.write("a.images", Self.quarters(40, seed: 1))
        func message(_ change: (inout Recipe) -> Void) throws -> String {
            var recipe = try Recipe(yaml: Self.yaml(path))
            change(&recipe)
            do {
                _ = try TrainingData(recipe)
                return ""
            } catch {
                return "\(error)"
            }
        }
        let (sound, few) = (try message { _ in }, try message { $0.model.vocabulary = 3 })
        #expect(sound.isEmpty && few.contains("an image of class 3, and the model 3 classes"))
        let coloured = try message { $0.model.patches?.channels = 3 }
        #expect(coloured.contains("8 x 8 pixels with 1 values"))
        let none = try message { $0.data.heldOut = 0.001 }
        #expect(none.contains("leaves no held-out image"))
        try scratch.write("a.images", text: "In the beginning")
        let text = try message { _ in }
        #expect(text.contains("is no file of images") && text.contains("Scripts/fetch-images.sh"))
    }
}
