import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTestSupport
import Foundation
import Testing

@testable import ApusTraining

/// Steps whose numbers are looked at after later ones were enqueued, as those of a device are.
@Suite struct LateReadingTests {
    private let scratch: ScratchFolder

    init() throws {
        scratch = try ScratchFolder()
        var generator = SeededGenerator(seed: 5)
        try scratch.write("text.txt", (0..<3000).map { _ in UInt8.random(in: 97...122, using: &generator) })
    }

    // MARK: Steps

    /// A batch of a step without the last token of the vocabulary, or, when `isWild`, with it.
    private func batch(_ trainer: Trainer, _ step: Int, isWild: Bool = false) -> TokenBatch {
        let batch = trainer.batch(step)
        var inputs = batch.inputs.map { $0 == 39 ? 0 : $0 }
        if isWild { inputs[inputs.count / 2] = 39 }
        return TokenBatch(inputs: inputs, targets: batch.targets.map { $0 == 39 ? 0 : $0 })
    }

    private func enqueue(_ trainer: Trainer, _ step: Int, _ batch: TokenBatch) throws -> EnqueuedStep {
        let length = trainer.sequenceLength
        return try trainer.step.enqueue(step: step, sequenceLength: length, learningRate: 0.01) {
            batch[$0.lowerBound * length..<$0.upperBound * length]
        }
    }

    /// LayerNorm, whose mean overflows where a row of large numbers is not finite in sum; routers with a selection bias.
    private static let training = TrainingCase(
        testDescription: "sigmoid with selection bias, LayerNorm",
        model: TrainingCase.decoder(
            TrainingCase.moe(
                router: RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.05),
                losses: RouterLosses(balance: 0.02)), norm: .layer))

    /// A trainer after two steps, in which the row of the last token is so large that what is made of it is no number.
    private func trainer(_ precision: Precision) throws -> Trainer {
        let trainer = try Trainer(Self.training, precision)
        for step in 1...2 {
            _ = try trainer.step(step: step, batch: batch(trainer, step), learningRate: 0.01)
        }
        let name = "model.embed_tokens.weight"
        for tensor in [try #require(trainer.model.store[name]).acquire(on: .cpu)]
            + trainer.optimizer.namedStates().filter({ $0.name == "master.\(name)" }).map(\.tensor)
        {
            let values = tensor.floats().enumerated().map { place, value in
                place / trainer.model.configuration.width == 39 ? 3e38 : value
            }
            if tensor.dtype == .f32 { tensor.assign(values) } else { tensor.assign(values.map(bfloat16Bits)) }
        }
        return trainer
    }

    @Test(arguments: Precision.allCases)
    func `a step that goes wrong is undone and named when two more were enqueued`(_ precision: Precision) throws {
        let (late, atOnce) = (try trainer(precision), try trainer(precision))
        let before = try late.tensors.map(\.tensor.bits)
        let expected = #expect(throws: NonFiniteError.self) {
            _ = try atOnce.step(step: 3, batch: batch(atOnce, 3, isWild: true), learningRate: 0.01)
        }
        let steps = try [3, 4, 5].map { try enqueue(late, $0, batch(late, $0, isWild: $0 == 3)) }
        let found = #expect(throws: NonFiniteError.self) { try steps[0].result() }
        #expect(found?.step == 3 && found?.isWeight == false && found?.place == "the attention of layer 0")
        #expect(found?.description == expected?.description)
        for trainer in [late, atOnce] {
            #expect(trainer.optimizer.stepCount == 2)
            #expect(try trainer.tensors.map(\.tensor.bits) == before)
            for group in trainer.model.store.groups {
                #expect(try group.gradientParts[0].gradients().floats().allSatisfy { $0 == 0 })
            }
        }
        // Both go on, and in the same way.
        for step in 3...4 {
            let left = try late.step(step: step, batch: batch(late, step), learningRate: 0.01)
            let right = try atOnce.step(step: step, batch: batch(atOnce, step), learningRate: 0.01)
            #expect(left.loss.isFinite && left.loss.bitPattern == right.loss.bitPattern)
        }
        #expect(try late.tensors.map(\.tensor.bits) == atOnce.tensors.map(\.tensor.bits))
        #expect(try late.tensors.map(\.tensor.bits) != before)
    }

    @Test(arguments: [TrainingCase.all[3], .pooled])
    func `steps that are enqueued ahead come to what they come to one by one`(_ training: TrainingCase) throws {
        let (late, atOnce) = (try Trainer(training, .f32), try Trainer(training, .f32))
        let steps = try (1...4).map { try enqueue(late, $0, late.batch($0)) }
        for (step, expected) in zip(steps, try atOnce.train(1...4)) {
            let found = try step.result()
            #expect(found.loss.bitPattern == expected.loss.bitPattern)
            #expect(found.gradientNorm.bitPattern == expected.gradientNorm.bitPattern)
            #expect(found.routing.balance == expected.routing.balance)
            #expect(found.routing.layers.map(\.choices) == expected.routing.layers.map(\.choices))
            #expect(found.routing.layers.map(\.rows) == expected.routing.layers.map(\.rows))
        }
        for (left, right) in zip(try late.tensors, try atOnce.tensors) {
            expectSameBits(left.tensor, right.tensor, left.name)
        }
    }

    // MARK: Runs

    private func run(_ name: String, late: Bool, _ change: (inout Recipe) -> Void = { _ in }) throws -> TrainingRun {
        var model = TrainingCase.all[3].model
        model.vocabulary = 257
        model.maximumPositions = 64
        var recipe = Recipe(
            seed: 7, model: model,
            data: DataConfiguration(path: "\(scratch.path)/text.txt", sequenceLength: 16, heldOut: 0.1),
            training: TrainingConfiguration(
                steps: 23, batch: 4, microBatch: 2, precision: .bf16, evaluateEvery: 9, evaluateBatches: 1),
            output: OutputConfiguration(saveEvery: 7, keep: 9, logEvery: 5))
        change(&recipe)
        let run = try TrainingRun(
            recipe, folder: "\(scratch.path)/\(name)", resumes: false, backend: CPUBackend(threadCount: 1))
        run.steps.looksLate = late
        return run
    }

    /// The lines of a run's metrics without what the clock and the memory say.
    private func metrics(_ name: String) throws -> [NSDictionary] {
        let text = try #require(textFile("\(scratch.path)/\(name)/metrics.jsonl"))
        return try text.split(separator: "\n").map { line in
            var object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
            for key in ["tokens_per_second", "mfu", "step_seconds", "peak_bytes"] {
                #expect(try #require(object.removeValue(forKey: key) as? Double) > 0, "\(key)")
            }
            return object as NSDictionary
        }
    }

    private func checkpoints(_ name: String) throws -> [String: [UInt8]] {
        let folder = "\(scratch.path)/\(name)/checkpoints"
        let files = folderNames(folder).flatMap { step in folderNames("\(folder)/\(step)").map { "\(step)/\($0)" } }
        return try Dictionary(uniqueKeysWithValues: files.map { ($0, try fileBytes("\(folder)/\($0)")) })
    }

    @Test func `a run whose steps are seen late leaves the same lines and the same checkpoints`() throws {
        for late in [true, false] { #expect(try run("\(late)", late: late).run() == .finished) }
        let lines = try metrics("true")
        #expect(lines == (try metrics("false")) && lines.count == 23)
        #expect(lines.enumerated().allSatisfy { $1["step"] as? Int == $0 + 1 })
        #expect(lines.count { $0["held_out_loss"] != nil } == 3)
        let saved = try checkpoints("true")
        #expect(saved == (try checkpoints("false")))
        let steps = [7, 14, 21, 23].map { "step-000000\($0 < 10 ? "0" : "")\($0)" }
        #expect(Set(saved.keys.map { String($0.prefix(13)) }) == Set(steps))
    }

    @Test func `a run that goes astray ends at the same step with the same words and the same checkpoint`() throws {
        var errors: [NonFiniteError?] = []
        var ends: [(taken: Int, saved: Int?)] = []
        for late in [true, false] {
            let run = try run("\(late)", late: late) {
                $0.training.optimizer.learningRate = 1e30
                $0.training.clipNorm = 0
                $0.output.saveEvery = 0
                $0.training.evaluateEvery = 20
            }
            errors.append(#expect(throws: NonFiniteError.self) { try run.run() })
            ends.append((run.stepsTaken, run.savedStep))
        }
        #expect(errors[0]?.description == errors[1]?.description)
        #expect(errors[0]?.step == ends[0].taken + 1)
        #expect(ends[0] == ends[1])
        #expect(try metrics("true") == metrics("false"))
        #expect(try checkpoints("true") == checkpoints("false"))
    }

    @Test func `steps under way when something else fails are told of and saved`() throws {
        for late in [true, false] {
            let run = try run("\(late)", late: late) {
                $0.output.saveEvery = 0
                $0.training.evaluateEvery = 20
            }
            let folder = "\(scratch.path)/traces\(late)"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
            run.traceFile = try TraceFile(path: "\(folder)/trace.json", steps: 1)
            // Without its folder the trace cannot be written, which is tried when step 3 has been enqueued.
            try FileManager.default.removeItem(atPath: folder)
            #expect(throws: (any Error).self) { try run.run() }
            #expect(run.stepsTaken == 3 && run.savedStep == 3)
            #expect(try metrics("\(late)").count == 3)
        }
        #expect(try metrics("true") == metrics("false"))
        #expect(try checkpoints("true") == checkpoints("false"))
    }
}
