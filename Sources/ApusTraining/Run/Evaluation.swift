public import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

// Shape letters: B sequences of a batch, S tokens of a sequence.

extension TrainStep {
    /// The mean loss over the first `batches` micro-batches of a stream, in nats, without noise and without a tape.
    public func evaluate(_ stream: SequenceStream, batches: Int) throws -> Double {
        let size = configuration.microBatch
        let count = min(batches * size, stream.count)
        var total = 0.0
        var targetCount = 0
        for first in stride(from: 0, to: count, by: size) {
            let places = first..<min(first + size, count)
            let batch = try stream.sequences(places)
            let context = try context(
                Tape(backend: backend, isRecording: false), sequences: places.count, stream.sequenceLength,
                firstToken: 0, step: nil, globalTokens: batch.inputs.count, documents: batch.documents, nil)
            let result = try model.loss(
                tokens: backend.tensor(batch.inputs, Shape(batch.inputs.count)),
                targets: backend.tensor(batch.targets, Shape(batch.targets.count)), scale: 1, context)
            total += try backend.floats(result.perToken).reduce(0) { $0 + Double($1) }
            targetCount += batch.targets.count { $0 >= 0 }
        }
        return total / Double(max(targetCount, 1))
    }
}
