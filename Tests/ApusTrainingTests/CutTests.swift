import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// What a step computes does not depend on how its batch is cut, nor on what it keeps or who computes it.
@Suite struct CutTests {
    /// The loss and each parameter's gradient: without decay of the first moment, that is the gradient itself.
    private func gradients(
        _ training: TrainingCase, microBatch: Int, checkpointing: Bool
    ) throws -> (result: TrainStep.Result, gradients: [(name: String, values: Tensor)]) {
        var configuration = training.training(batch: 8, microBatch: microBatch)
        configuration.checkpointing = checkpointing
        configuration.clipNorm = 0
        let trainer = try Trainer(training.model, configuration, beta1: 0)
        let result = try trainer.train(1...1)[0]
        let states = trainer.optimizer.namedStates().filter { $0.name.hasPrefix("first.") }
        return (result, states.map { ($0.name, $0.tensor) })
    }

    @Test(arguments: TrainingCase.all + TrainingCase.routers, [1, 2, 4])
    func `gradients are the same for 1, 2 and 4 micro-batches`(_ training: TrainingCase, _ count: Int) throws {
        let whole = try gradients(training, microBatch: 8, checkpointing: false)
        let cut = try gradients(training, microBatch: 8 / count, checkpointing: true)
        #expect(abs(whole.result.loss - cut.result.loss) <= 1e-5 * abs(whole.result.loss))
        #expect(whole.result.routing.layers.map(\.rows) == cut.result.routing.layers.map(\.rows))
        #expect(whole.result.routing.droppedFraction == cut.result.routing.droppedFraction)
        for (left, right) in zip(cut.gradients, whole.gradients) {
            expectClose(left.values.floats(), right.values.doubles, within: 1e-5, left.name)
        }
        let isBiased = training.model.moe(layer: 0)?.router.biasRate ?? 0 > 0
        let still = cut.gradients.filter { $0.values.floats().allSatisfy { $0 == 0 } }.map(\.name)
        #expect(still.count == (isBiased ? 2 : 0), "only a selection bias has no gradient: \(still)")
    }

    @Test(arguments: TrainingCase.all + TrainingCase.routers + [.pooled])
    func `checkpointing changes no bit`(_ training: TrainingCase) throws {
        let kept = try gradients(training, microBatch: 4, checkpointing: false)
        let again = try gradients(training, microBatch: 4, checkpointing: true)
        #expect(kept.result.loss.bitPattern == again.result.loss.bitPattern)
        #expect(kept.result.routing.balance == again.result.routing.balance)
        for (left, right) in zip(again.gradients, kept.gradients) {
            expectSameBits(left.values, right.values, left.name)
        }
    }

    @Test func `capacity is formed for each routing group`() throws {
        let alone = TrainingCase.all[1]
        var together = alone
        together.routingGroup = 4
        let left = try gradients(alone, microBatch: 8, checkpointing: false).result.routing
        let right = try gradients(together, microBatch: 8, checkpointing: false).result.routing
        #expect(left.layers.map(\.choices).first == right.layers.map(\.choices).first)
        #expect(left.layers.map(\.rows) != right.layers.map(\.rows))
    }

    @Test(arguments: TrainingCase.all + TrainingCase.routers + [.pooled], [Precision.f32, .bf16])
    func `the number of threads changes no bit`(_ training: TrainingCase, _ precision: Precision) throws {
        let one = try Trainer(training.model, training.training(precision, microBatch: 4), threads: 1)
        let three = try Trainer(training.model, training.training(precision, microBatch: 4), threads: 3)
        for (left, right) in zip(try three.train(1...3), try one.train(1...3)) {
            #expect(left.loss.bitPattern == right.loss.bitPattern)
            #expect(left.gradientNorm.bitPattern == right.gradientNorm.bitPattern)
        }
        for (left, right) in zip(try three.tensors, try one.tensors) {
            expectSameBits(left.tensor, right.tensor, left.name)
        }
    }

    @Test(arguments: TrainingCase.all + TrainingCase.routers + [.pooled], Precision.allCases)
    func `a steady step asks the system for no memory and leaves none behind`(
        _ training: TrainingCase, _ precision: Precision
    ) throws {
        let trainer = try Trainer(training, precision)
        try trainer.train(1...2)
        let settled = trainer.backend.allocator.statistics
        for step in 3...6 {
            try trainer.train(step...step)
            let found = trainer.backend.allocator.statistics
            #expect(found.live == settled.live, "step \(step)")
            #expect(found.systemAllocations == settled.systemAllocations, "step \(step)")
        }
    }
}
