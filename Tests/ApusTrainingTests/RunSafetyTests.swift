import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// Parts of a run that keep what was learnt: what may be saved, what is read at once, what may change.
@Suite struct RunSafetyTests {
    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func `one weight that is no number keeps a checkpoint from being written`(_ value: Float) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 1)
        let trainer = try Trainer(TrainingCase.all[0], .f32)
        try trainer.train(1...1)
        try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 1), backend: trainer.backend)
        let name = "model.layers.1.mlp.down_proj.weight"
        let weights = try #require(trainer.model.store[name]).acquire(on: .cpu)
        weights.assign(weights.floats().enumerated().map { $0.offset == 7 ? value : $0.element })
        let error = #expect(throws: NonFiniteWeightsError.self) {
            try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 2), backend: trainer.backend)
        }
        #expect(error?.step == 2 && error?.place == "1 weights of \(name)")
        #expect(folderNames(checkpoints.path) == ["step-00000001"])
        #expect(checkpoints.newestGood().step == 1)
    }

    @Test func `checkpoints that were passed over go when the next is safe, and none goes unless asked`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 2)
        let trainer = try Trainer(TrainingCase.all[0], .f32)
        func save(_ step: Int, removing: [Int] = [], prunes: Bool = true) throws {
            try checkpoints.save(
                trainer.model, trainer.optimizer, trainer.state(step: step), removing: removing, prunes: prunes,
                backend: trainer.backend)
        }
        for step in [1, 8, 9] { try save(step) }
        #expect(checkpoints.steps() == [8, 9])
        try save(3, removing: [8, 9], prunes: false)
        #expect(checkpoints.steps() == [3])
        for step in 4...6 { try save(step, prunes: false) }
        #expect(checkpoints.steps() == [3, 4, 5, 6])
        try save(7)
        #expect(checkpoints.steps() == [6, 7])
    }

    @Test func `a batch is read a micro-batch at a time, to the same bits`() throws {
        let training = TrainingCase.all[0]
        let (whole, parts) = (try Trainer(training, .f32), try Trainer(training, .f32))
        let batch = whole.batch(1)
        let expected = try whole.step(step: 1, batch: batch, learningRate: 0.01)
        let length = parts.sequenceLength
        let asked = Asked()
        let found = try parts.step(step: 1, sequenceLength: length, learningRate: 0.01) { sequences in
            asked.ranges.append(sequences)
            let range = sequences.lowerBound * length..<sequences.upperBound * length
            return batch[range]
        }
        #expect(Set(asked.ranges) == [0..<2, 2..<4])
        #expect(found.loss.bitPattern == expected.loss.bitPattern)
        for (left, right) in zip(try parts.tensors, try whole.tensors) {
            expectSameBits(left.tensor, right.tensor, left.name)
        }
    }

    private final class Asked { var ranges: [Range<Int>] = [] }

    @Test func `only what learning alone reads may differ`() {
        let base = MoEConfiguration(
            experts: 4, choices: 2, width: 8, router: RouterConfiguration(scoring: .sigmoid, biasRate: 0.01),
            losses: RouterLosses(balance: 0.01))
        func model(_ change: (inout MoEConfiguration) -> Void = { _ in }) -> ModelConfiguration {
            var moe = base
            change(&moe)
            return TrainingCase.decoder(moe)
        }
        let learning: [(key: String, now: String, change: (inout MoEConfiguration) -> Void)] = [
            ("losses.balance", "0.05", { $0.losses.balance = 0.05 }), ("losses.z", "0.5", { $0.losses.z = 0.5 }),
            ("losses.importance", "0.5", { $0.losses.importance = 0.5 }),
            ("losses.scope", "pooled", { $0.losses.scope = .pooled }),
            ("router.jitter", "0.1", { $0.router.jitter = 0.1 }),
            ("router.gumbel", "true", { $0.router.gumbel = true }),
            ("router.bias_rate", "0.5", { $0.router.biasRate = 0.5 }),
        ]
        for (key, now, change) in learning {
            let (result, changes) = model().learning(as: model(change))
            #expect(result == model(change), "\(key)")
            #expect(changes.map(\.key) == ["model.experts.\(key)"] && changes.first?.now == now, "\(changes)")
        }
        let computing: [(inout MoEConfiguration) -> Void] = [
            { $0.router.biasRate = 0 }, { $0.choices = 1 }, { $0.router.renormalizes.toggle() },
            { $0.router.weightScale = 2 }, { $0.router.scoring = .softmaxThenTopK },
            { $0.policy = .capacity(factor: 1, minimum: 1, order: .position) }, { $0.sharedWidth = 8 },
        ]
        for change in computing {
            let (result, changes) = model().learning(as: model(change))
            #expect(result == model() && changes.isEmpty)
            #expect(result.firstDifference(from: model(change)) != nil)
        }
    }
}
