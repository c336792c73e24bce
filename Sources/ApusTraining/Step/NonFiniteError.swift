import ApusData
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
    /// Whether ``place`` is a weight: then the step before has spoiled the model already.
    public let isWeight: Bool

    /// Looks for the first place by running the batch again, stage by stage: gradients may be of later steps by now.
    init(
        step: Int, loss: Float, sequenceLength: Int, _ read: @escaping TrainStep.Reader, in trainStep: TrainStep
    ) throws {
        self.step = step
        self.loss = loss
        let agree = trainStep.agree
        let weight = try agree(trainStep.model.firstNonFiniteWeight(backend: trainStep.backend))
        isWeight = weight != nil
        let probe = NonFiniteProbe(trainStep: trainStep, sequenceLength: sequenceLength, read: read, step: step)
        place = try weight ?? probe.stage() ?? probe.gradient() ?? "the sum of all squares"
    }
}

extension NonFiniteError: CustomStringConvertible {
    /// What happened, where, and what to do.
    public var description: String {
        """
        step \(step): \(loss.isFinite ? "a gradient" : "the loss") is not finite (loss \(loss)), first seen in \(place). \
        The step was not taken; \
        \(isWeight ? "the weights are spoiled already, checkpoints are not" : "weights and checkpoints are unharmed"). \
        \(NonFiniteError.remedy)
        """
    }

    fileprivate static let remedy =
        "Lower training.optimizer.learning_rate, raise training.schedule.warmup_steps, or set training.clip_norm"
}

/// Weights that are not numbers, found when they were to be saved. They are not: no checkpoint gives way to them.
public struct NonFiniteWeightsError: Error, Sendable, CustomStringConvertible {
    /// The step that left them.
    public let step: Int
    /// How many they are, and of what parameter.
    public let place: String

    /// What happened, where, and what to do.
    public var description: String {
        "the weights after step \(step) are not finite (\(place)). They were not saved; checkpoints are unharmed. "
            + NonFiniteError.remedy
    }
}

extension Transformer {
    /// The first parameter with weights that are not finite, and how many; `nil` when all are.
    func firstNonFiniteWeight(backend: any Backend) throws -> String? {
        // Group by group first: in the usual case nothing is wrong, and there are few groups.
        guard try store.groups.contains(where: { try backend.countNonFinite($0.weights) > 0 }) else { return nil }
        for parameter in store.parameters {
            let count = try parameter.withWeights(on: backend.stream) { try backend.countNonFinite($0) }
            if count > 0 { return "\(count) weights of \(parameter.name)" }
        }
        return nil
    }
}

/// Finds where a pass stops being finite.
private struct NonFiniteProbe {
    let trainStep: TrainStep
    let sequenceLength: Int
    let read: TrainStep.Reader
    let step: Int

    private var backend: any Backend { trainStep.backend }

    func stage() throws -> String? {
        for sequences in trainStep.microBatches {
            let batch = try read(sequences)
            let context = try trainStep.context(
                Tape(backend: backend, isRecording: false), sequences: sequences.count, sequenceLength,
                firstToken: sequences.lowerBound * sequenceLength, step: step,
                globalTokens: trainStep.configuration.batch * sequenceLength, documents: batch.documents, nil)
            let tokens = try backend.tensor(batch.inputs, Shape(batch.inputs.count))
            let place = try trainStep.model.firstNonFiniteStage(tokens: tokens, context, agree: trainStep.agree)
            if let place { return place }
        }
        return nil
    }

    func gradient() throws -> String? {
        trainStep.clearGradients()
        _ = try trainStep.accumulate(
            step: step, sequenceLength: sequenceLength, report: nil, trace: nil, read: read)
        // Backward runs from the last layer to the first: the last parameter touched by it is the first to go wrong.
        let wrong = try trainStep.model.store.gradientPieces().filter { try backend.countNonFinite($0.tensor) > 0 }
        let names = Set(wrong.map(\.parameter.name))
        let last = trainStep.model.store.parameters.last { names.contains($0.name) }
        return try trainStep.agree(last.map { "the gradient of \($0.name)" })
    }
}
