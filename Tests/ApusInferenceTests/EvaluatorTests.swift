import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusInference

@Suite struct `The evaluator` {
    @Test(arguments: GoldenGeneration.families)
    func `gives the loss and the logits of transformers`(family: String) throws {
        let golden = try GoldenGeneration(family)
        let sequences = try golden.plainSequences()
        let expected = try golden.floats("plain.logits").map(Double.init)
        for passTokens in [8192, 1] {
            let evaluator = try Evaluator(golden.model, backend: golden.backend, passTokens: passTokens)
            let evaluation = try evaluator.evaluate(sequences)
            #expect(evaluation.tokens == sequences.reduce(0) { $0 + $1.count - 1 })
            let loss = Double(try golden.floats("plain.lm_loss")[0])
            #expect(abs(evaluation.natsPerToken - loss) < 1e-5 * loss)
            #expect(abs(evaluation.perplexity - exp(loss)) < 1e-4 * exp(loss))
            #expect(evaluation.bitsPerByte == nil)
            var logits: [Float] = []
            try evaluator.logits(of: sequences) { _, rows in logits += rows.floats() }
            #expect(relativeError(logits, expected) < 1e-5)
        }
    }

    @Test func `cuts long sequences into windows that predict every token once`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend, context: 32)
        let evaluator = try Evaluator(model, backend: backend)
        for length in [2, 31, 32, 33, 34, 64, 65, 66, 100] {
            let tokens = randomTokens(length, seed: UInt64(length))
            let found = try evaluator.evaluate([tokens])
            var nats = 0.0
            for start in stride(from: 0, to: length - 1, by: 32) {
                // Token by token from the logits of a window read alone.
                let window = Array(tokens[start..<min(start + 32, length - 1)])
                let logits = try Pass(model: model, backend: backend).logits([window]).floats()
                for place in window.indices {
                    let row = logits[place * 96..<(place + 1) * 96].map(Double.init)
                    let sum = row.reduce(0) { $0 + exp($1) }
                    nats += log(sum) - row[Int(tokens[start + place + 1])]
                }
            }
            #expect(found.tokens == length - 1)
            #expect(abs(found.nats - nats) < 1e-4 * nats)
        }
        let narrow = try Evaluator(model, backend: backend, window: 5).evaluate([randomTokens(100, seed: 1)])
        #expect(narrow.tokens == 99)
    }

    @Test func `counts how often each expert is chosen`() throws {
        let backend = CPUBackend()
        let router = RouterConfiguration(scoring: .sigmoid, biasRate: 0.01)
        let mixture = MoEConfiguration(experts: 4, choices: 2, width: 8, router: router)
        let configuration = ModelConfiguration(
            vocabulary: 96, width: 16, heads: 2, maximumPositions: 8,
            feedForward: [.dense(width: 8), .moe(mixture), .moe(mixture)])
        let model = try Transformer(configuration, backend: backend, precision: .f32, isTrained: false)
        try model.store.initialize(seed: 7, backend: backend)
        // Where the bias leaves no choice, every token chooses the same two.
        let bias = try #require(model.store["model.layers.1.mlp.gate.e_score_correction_bias"])
        try bias.withWeights(on: backend.stream) { try backend.upload([-9, 9, -9, 9] as [Float], into: $0) }
        let tokens = randomTokens(100, seed: 3)
        for passTokens in [8192, 1] {
            let evaluator = try Evaluator(model, backend: backend, passTokens: passTokens)
            let found = try evaluator.utilization(of: MemoryTokens(tokens[...]), limit: 50)
            #expect(found.evaluation == (try evaluator.evaluate(MemoryTokens(tokens[...]), limit: 50)))
            #expect(found.evaluation.tokens == 49)
            #expect(found.utilization.choices.keys.sorted() == [1, 2])
            #expect(found.utilization.choices[1] == [0, 49, 0, 49])
            let free = try #require(found.utilization.choices[2])
            #expect(free.reduce(0, +) == 98 && free.allSatisfy { (0...49).contains($0) } && Set(free).count > 1)
        }
    }

    @Test func `counts the bytes of what it predicts`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend, vocabulary: 257)
        let vocabulary = ByteVocabulary()
        let tokens = vocabulary.encode("grüße") + [256]
        let found = try Evaluator(model, backend: backend).evaluate([tokens, [65]], vocabulary: vocabulary)
        #expect(found.tokens == 7 && found.bytes == 6)
        #expect(found.bitsPerByte == found.nats / log(2) / 6)
    }

    @Test func `writes one tensor of logits a sequence`() throws {
        let golden = try GoldenGeneration("qwen3_moe")
        let sequences = [golden.prompts[0], [], golden.prompts[1]]
        let evaluator = try Evaluator(golden.model, backend: golden.backend)
        let scratch = try ScratchFolder()
        let path = scratch.file("logits.safetensors")
        try evaluator.writeLogits(of: sequences, to: path)
        let file = try SafetensorsFile(path: path)
        #expect(file.entries.map(\.name).sorted() == ["logits.0", "logits.1", "logits.2"])
        try evaluator.logits(of: sequences) { index, logits in
            let name = "logits.\(index)"
            let (shape, values) = (try file.entry(name).shape, try file.floatValues(name))
            #expect(shape == [sequences[index].count, 96])
            #expect(values == logits.floats())
        }
    }

    @Test func `refuses what cannot be evaluated`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend, context: 16)
        let evaluator = try Evaluator(model, backend: backend)
        #expect(throws: InferenceError.nothingToEvaluate(sequences: 2)) { try evaluator.evaluate([[], [3]]) }
        let outside = InferenceError.tokenOutsideVocabulary(sequence: 1, position: 2, id: 96, vocabulary: 96)
        #expect(throws: outside) { try evaluator.evaluate([[1, 2], [1, 2, 96]]) }
        #expect(throws: outside) { try evaluator.logits(of: [[1, 2], [1, 2, 96]]) { _, _ in } }
        #expect(throws: InferenceError.sequenceTooLong(sequence: 0, tokens: 17, context: 16)) {
            try evaluator.logits(of: [randomTokens(17, seed: 1)]) { _, _ in }
        }
        for window in [0, 17] {
            #expect(throws: InferenceError.self) { try Evaluator(model, backend: backend, window: window) }
        }
        #expect(throws: InferenceError.self) { try Evaluator(model, backend: backend, passTokens: 0) }
    }
}
