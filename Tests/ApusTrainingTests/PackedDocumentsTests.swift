import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusTraining

/// Documents packed into one sequence train as if each were a sequence of its own.
@Suite struct PackedDocumentsTests {
    private static let model = TrainingCase(
        testDescription: "dropless, no losses but the model's",
        model: TrainingCase.decoder(TrainingCase.moe(losses: RouterLosses())))
    private static let hybrid: TrainingCase = {
        var changed = model.model
        changed.convolution = ConvolutionConfiguration(layers: [0], width: 4)
        return TrainingCase(testDescription: "the same with convolutions", model: changed)
    }()

    private func batch(packed: Bool) throws -> TokenBatch {
        let ends = [5, 16, 23, 32, 48, 52, 64]
        var generator = SeededGenerator(seed: 4)
        let tokens = (0...64).map { _ in Int32.random(in: 0..<40, using: &generator) }
        let source = SequenceStream.Source(path: "t", tokens: MemoryTokens(tokens[...], documentEnds: ends))
        // Sequences of 16: every fourth document end is one of a sequence, too.
        let stream = try SequenceStream(
            [source], sequenceLength: 16, shuffleSeed: nil, masksDocuments: packed, part: "training")
        return try stream.sequences(0..<4)
    }

    @Test func `masks change what is learnt`() throws {
        let losses = try [true, false].map { packed in
            let trainer = try Trainer(Self.model, .f32)
            return try trainer.step(step: 1, batch: batch(packed: packed), learningRate: 0).loss
        }
        #expect(abs(losses[0] - losses[1]) > 1e-4)
    }

    /// The mean loss over documents that are sequences of a ragged batch, without any mask.
    @Test(arguments: [model, hybrid]) func `the loss is that of documents alone`(_ sample: TrainingCase) throws {
        let trainer = try Trainer(sample, .f32)
        let batch = try batch(packed: true)
        let packed = try trainer.step(step: 1, batch: batch, learningRate: 0).loss
        let starts = (0..<64).filter { $0 % 16 == 0 || batch.documents?.positions[$0] == 0 } + [64]
        let lengths = zip(starts, starts.dropFirst()).map { $1 - $0 }
        #expect(lengths.count > 6)
        let allocator = trainer.backend.allocator
        let layout = try TokenLayout.sequences(lengths, backend: trainer.backend)
        let context = try trainer.step.context(
            Tape(backend: trainer.backend, isRecording: false), sequences: 4, 16, firstToken: 0, step: nil,
            globalTokens: 64, documents: nil, nil)
        let alone = ForwardContext(tape: context.forward.tape, layout: layout)
        let result = try trainer.model.loss(
            tokens: allocator.tensor(batch.inputs, Shape(64)), targets: allocator.tensor(batch.targets, Shape(64)),
            scale: 1, MoEContext(forward: alone, report: nil, globalTokens: 64))
        let losses = result.perToken.floats()
        let mean = losses.reduce(0, +) / Float(batch.targets.count { $0 >= 0 })
        #expect(abs(mean - packed) < 1e-5 * abs(packed), "\(mean) \(packed)")
    }
}
