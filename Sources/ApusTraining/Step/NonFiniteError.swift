import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

/// A loss or gradient that is not a number, and where it first appeared.
public struct NonFiniteError: Error, Sendable {
    /// The step that was not taken.
    public let step: Int
    /// The loss as it came out.
    public let loss: Float
    /// The first place with a value that is not finite: a weight, a stage of the forward pass, or a gradient.
    public let place: String

    /// Looks for the first place by running the batch's first sequences again, stage by stage.
    init(step: Int, loss: Float, batch: [Int32], in trainStep: TrainStep) throws {
        self.step = step
        self.loss = loss
        let probe = NonFiniteProbe(trainStep: trainStep, batch: batch, step: step)
        place = try probe.weight() ?? probe.stage() ?? probe.gradient() ?? "the sum of all squares"
    }
}

extension NonFiniteError: CustomStringConvertible {
    /// What happened, where, and what to do.
    public var description: String {
        """
        step \(step): \(loss.isFinite ? "a gradient" : "the loss") is not finite (loss \(loss)), first seen in \(place). \
        The step was not taken; weights and the last checkpoint are unharmed. Lower training.optimizer.learning_rate, raise training.schedule.warmup_steps, or set \
        training.clip_norm, and continue with --resume
        """
    }
}

/// Finds where a pass stops being finite.
private struct NonFiniteProbe {
    let trainStep: TrainStep
    let batch: [Int32]
    let step: Int

    private var backend: any Backend { trainStep.backend }

    func weight() throws -> String? {
        for parameter in trainStep.model.store.parameters {
            let count = try parameter.withWeights(on: backend.stream) { try backend.countNonFinite($0) }
            if count > 0 { return "\(count) weights of \(parameter.name)" }
        }
        return nil
    }

    func stage() throws -> String? {
        let sequenceLength = batch.count / trainStep.configuration.batch
        let micro = trainStep.configuration.microBatch
        for first in stride(from: 0, to: trainStep.configuration.batch, by: micro) {
            let count = min(micro, trainStep.configuration.batch - first)
            let range = first * sequenceLength..<(first + count) * sequenceLength
            let context = try trainStep.context(
                Tape(backend: backend, isRecording: false), sequences: count, sequenceLength,
                firstToken: range.lowerBound, step: step, globalTokens: batch.count, nil)
            let tokens = try backend.allocator.tensor(Array(batch[range]), Shape(range.count))
            if let place = try trainStep.model.firstNonFiniteStage(tokens: tokens, context) { return place }
        }
        return nil
    }

    func gradient() throws -> String? {
        // Backward runs from the last layer to the first: the last parameter touched by it is the first to go wrong.
        for parameter in trainStep.model.store.parameters.reversed() {
            guard let gradient = parameter.gradient else { continue }
            if try backend.countNonFinite(gradient) > 0 { return "the gradient of \(parameter.name)" }
        }
        return nil
    }
}
