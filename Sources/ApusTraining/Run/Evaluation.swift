import ApusCollectives
public import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor

// Shape letters: B sequences of a batch, S tokens of a sequence.

extension TrainStep {
    /// The mean loss over the first `batches` micro-batches of a stream, in nats, without noise and without a tape.
    ///
    /// Ranks take turns, each with a micro-batch of its own; those that are left over or cut short are computed by all and
    /// counted once, so that every rank takes part in every pass.
    ///
    /// - Throws: ``DataError``, ``TensorError``, ``CollectiveError``.
    public func evaluate(_ stream: SequenceStream, batches: Int) throws -> Double {
        let size = microBatches[0].count
        let count = min(batches * configuration.microBatch, stream.count)
        let place = ranks?.groups.place
        let (rank, degree) = (place?.data ?? 0, place?.layout.data ?? 1)
        var sums = [0.0, 0.0]
        var first = 0
        while first < count {
            let isShared = count - first >= size * degree
            let begin = first + (isShared ? rank * size : 0)
            let part = try sum(of: stream, begin..<min(begin + size, count))
            if isShared || rank == 0 { sums = [sums[0] + part.loss, sums[1] + Double(part.targets)] }
            first += isShared ? size * degree : size
        }
        if let ranks, degree > 1 { sums = try ranks.groups.data.sum(sums) }
        return sums[0] / max(sums[1], 1)
    }

    /// The sum of the losses of some sequences, and how many targets there are.
    private func sum(of stream: SequenceStream, _ places: Range<Int>) throws -> (loss: Double, targets: Int) {
        let batch = try stream.sequences(places)
        let context = try context(
            Tape(backend: backend, isRecording: false), sequences: places.count, stream.sequenceLength,
            firstToken: 0, step: nil, globalTokens: batch.targets.count, documents: batch.documents, nil,
            isEvaluation: true)
        let result = try model.loss(
            tokens: backend.tensor(batch.inputs, Shape(batch.inputs.count)),
            targets: backend.tensor(batch.targets, Shape(batch.targets.count)), scale: 1, context)
        let loss = try backend.floats(result.perToken).reduce(0) { $0 + Double($1) }
        return (loss, batch.targets.count { $0 >= 0 })
    }
}
