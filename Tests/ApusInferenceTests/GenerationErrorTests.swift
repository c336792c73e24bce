import ApusData
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

@Suite struct `Generation refuses` {
    private let backend = CPUBackend()

    private func generate(_ prompts: [[Int32]], _ options: GenerationOptions = GenerationOptions()) throws
        -> [Generation]
    {
        try Generator(randomModel(backend, context: 20), backend: backend, options: options).generate(prompts)
    }

    @Test func `an empty prompt where there is nothing to start from`() throws {
        #expect(throws: InferenceError.emptyPrompt(prompt: 1)) { try generate([[3], []]) }
        let options = GenerationOptions(maximumTokens: 5, start: 9)
        #expect(try generate([[]], options) == generate([[9]], options))
    }

    @Test func `a prompt that leaves no room in the context`() throws {
        #expect(throws: InferenceError.promptTooLong(prompt: 0, tokens: 20, context: 20)) {
            try generate([randomTokens(20, seed: 1)])
        }
        let last = try generate([randomTokens(19, seed: 1)])[0]
        #expect(last.tokens.count == 1 && last.finish == .context)
    }

    @Test(arguments: [-1, 96, .max] as [Int32])
    func `a token outside the vocabulary, by its place`(id: Int32) throws {
        let error = InferenceError.tokenOutsideVocabulary(sequence: 1, position: 2, id: id, vocabulary: 96)
        #expect(throws: error) { try generate([[1], [4, 5, id]]) }
        #expect(error.description.contains("position 2 of sequence 1"))
        #expect(throws: InferenceError.self) { try generate([[1]], GenerationOptions(ends: [id])) }
    }

    @Test(arguments: [
        SamplingOptions(temperature: -0.1), SamplingOptions(temperature: .nan), SamplingOptions(temperature: .infinity),
        SamplingOptions(topK: -1), SamplingOptions(topP: 0), SamplingOptions(topP: 1.01), SamplingOptions(topP: .nan),
    ])
    func `impossible sampling`(sampling: SamplingOptions) {
        #expect(throws: InferenceError.self) { try generate([[1]], GenerationOptions(sampling: sampling)) }
    }

    @Test(arguments: [
        GenerationOptions(maximumTokens: 0), GenerationOptions(blockSize: 8), GenerationOptions(cacheTokens: 3),
        GenerationOptions(passTokens: 0),
    ])
    func `impossible options`(options: GenerationOptions) {
        #expect(throws: InferenceError.self) { try generate([[1]], options) }
    }

    @Test func `what does not fit into the cache, before anything runs`() throws {
        let options = GenerationOptions(cacheTokens: 16)
        var heard = 0
        let model = try randomModel(backend, context: 20)
        #expect(throws: InferenceError.cacheFull(neededTokens: 19, heldTokens: 0, limitTokens: 16)) {
            try Generator(model, backend: backend, options: options).generate([[1]]) { _ in heard += 1 }
        }
        #expect(heard == 0)
    }

    @Test func `weights that yield NaN, by sequence and position`() throws {
        let model = try randomModel(backend, context: 20)
        let norm = try #require(model.store["model.norm.weight"])
        try norm.withWeights(on: backend.stream) { $0.assign([Float](repeating: .nan, count: $0.count)) }
        let error = #expect(throws: InferenceError.self) {
            try Generator(model, backend: backend, options: GenerationOptions()).generate([[1, 2, 3]])
        }
        guard case .unusableLogits(0, 3, _, let value) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(value.isNaN)
    }

    @Test func `more than memory holds, naming the cache's share`() throws {
        let small = CPUBackend(memoryLimit: 3_000_000)
        let model = try randomModel(small, context: 4000)
        let error = #expect(throws: TensorError.self) {
            try Generator(model, backend: small, options: GenerationOptions(maximumTokens: 3000))
                .generate((0..<8).map { randomTokens(900, seed: $0) })
        }
        #expect(String(describing: error).contains("out of memory"))
    }
}
