import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// A run that is saved and continued in fresh objects goes on as if nothing had been.
@Suite struct ResumeTests {
    @Test(arguments: TrainingCase.all + [.pooled], Precision.allCases)
    func `three steps, saved, and three more are six steps to the bit`(
        _ training: TrainingCase, _ precision: Precision
    ) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let straight = try Trainer(training, precision)
        try straight.train(1...3)
        let expected = try straight.train(4...6)

        let first = try Trainer(training, precision)
        try first.train(1...3)
        try checkpoints.save(first.model, first.optimizer, first.state(step: 3), backend: first.backend)
        // Other weights at first, so that one which is not loaded shows.
        let second = try Trainer(training, precision, weightsSeed: 2)
        #expect(checkpoints.newestGood().step == 3)
        #expect(try checkpoints.state(step: 3) == first.state(step: 3))
        try checkpoints.load(step: 3, into: second.model, second.optimizer, backend: second.backend)
        let found = try second.train(4...6)

        for (left, right) in zip(found, expected) {
            #expect(left.loss.bitPattern == right.loss.bitPattern)
            #expect(left.gradientNorm.bitPattern == right.gradientNorm.bitPattern)
            #expect(left.routing.balance == right.routing.balance)
            #expect(left.routing.droppedFraction == right.routing.droppedFraction)
            #expect(left.routing.layers.map(\.choices) == right.routing.layers.map(\.choices))
        }
        for (left, right) in zip(try second.tensors, try straight.tensors) {
            expectSameBits(left.tensor, right.tensor, left.name)
        }
    }

    @Test(arguments: Precision.allCases)
    func `a checkpoint holds moments and, where there are any, masters`(_ precision: Precision) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let trainer = try Trainer(TrainingCase.all[0], precision)
        try trainer.train(1...1)
        try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 1), backend: trainer.backend)
        let file = try ShardedSafetensors(folder: checkpoints.folder(step: 1), base: "optimizer")
        let kinds = Set(file.names.map { String($0.prefix { $0 != "." }) })
        #expect(kinds == (precision == .bf16 ? ["first", "second", "master"] : ["first", "second"]))
        let dense = try file.entry("first.model.layers.0.self_attn.q_proj.weight")
        #expect(dense.dtype == (precision == .bf16Pure ? .bf16 : .f32))
        // Routers stay in f32 whatever the rest.
        #expect(try file.entry("first.model.layers.0.mlp.gate.weight").dtype == .f32)
        #expect(!file.names.contains("master.model.layers.0.mlp.gate.weight"))
    }
}
