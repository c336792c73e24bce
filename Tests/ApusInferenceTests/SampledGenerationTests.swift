import ApusKernels
import ApusModels
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

@Suite struct `Sampled generation` {
    private let backend = CPUBackend(batchInvariant: true)

    private func generator(seed: UInt64) throws -> Generator {
        let sampling = SamplingOptions(temperature: 1.2, topK: 60, topP: 0.98, seed: seed)
        return try Generator(
            randomModel(backend), backend: backend, options: GenerationOptions(maximumTokens: 24, sampling: sampling))
    }

    @Test func `repeats by seed`() throws {
        let prompts = [randomTokens(7, seed: 1), randomTokens(2, seed: 2)]
        let first = try generator(seed: 4).generate(prompts)
        #expect(try generator(seed: 4).generate(prompts) == first)
        #expect(try generator(seed: 5).generate(prompts) != first)
    }

    @Test func `does not depend on who else is in the batch`() throws {
        let generator = try generator(seed: 9)
        let prompts = (0..<6).map { Prompt(randomTokens(1 + 5 * $0, seed: UInt64($0)), index: 100 + $0) }
        let together = try generator.generate(prompts)
        for (prompt, expected) in zip(prompts, together) { #expect(try generator.generate([prompt]) == [expected]) }
        #expect(try generator.generate(Array(prompts.reversed())) == Array(together.reversed()))
    }

    @Test func `gives equal prompts continuations of their own, unless they share an index`() throws {
        let generator = try generator(seed: 1)
        let tokens = randomTokens(5, seed: 3)
        let different = try generator.generate([tokens, tokens])
        #expect(different[0] != different[1])
        let same = try generator.generate([Prompt(tokens, index: 3), Prompt(tokens, index: 3)])
        #expect(same[0] == same[1])
    }
}
