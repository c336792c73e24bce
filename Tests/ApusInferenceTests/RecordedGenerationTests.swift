import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

@Suite struct `Generation by recorded steps` {
    /// Continuations by recorded steps and by passes, with what was told of each token.
    private func both(
        _ model: Transformer, _ backend: CPUBackend, _ prompts: [[Int32]], _ options: GenerationOptions
    ) throws -> [(generations: [Generation], told: [GeneratedToken])] {
        try [true, false].map { recordsSteps in
            var options = options
            options.recordsSteps = recordsSteps
            var told: [GeneratedToken] = []
            let generations = try Generator(model, backend: backend, options: options).generate(prompts) {
                told.append($0)
            }
            return (generations, told)
        }
    }

    @Test(arguments: [Precision.f32, .bf16])
    func `gives the tokens of passes, told in their order`(precision: Precision) throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try randomModel(backend, precision: precision)
        let prompts = [1, 16, 17, 70, 33].enumerated().map { randomTokens($1, seed: UInt64($0)) }
        for options in [
            GenerationOptions(maximumTokens: 40), GenerationOptions(maximumTokens: 40, blockSize: 23, passTokens: 13),
            GenerationOptions(maximumTokens: 40, cacheTokens: 240), GenerationOptions(maximumTokens: 1),
            GenerationOptions(maximumTokens: 3),
        ] {
            let results = try both(model, backend, prompts, options)
            #expect(results[0].generations == results[1].generations)
            for prompt in prompts.indices {
                #expect(
                    results[0].told.filter { $0.prompt == prompt } == results[1].told.filter { $0.prompt == prompt })
            }
        }
    }

    /// What was recorded writes to the cache's old tensors, which somebody else may have by then.
    @Test func `a cache that grows is recorded anew, and one that does not is not`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend)
        let cache = try BlockCache(BlockCache.Layout(model), backend: backend)
        let sequence = cache.addSequence()
        _ = try Pass(model: model, backend: backend).logits(
            [randomTokens(5, seed: 1)], sequences: [sequence], cache)
        let run = try DecodeRun(model, backend, cache, [sequence], tokens: [1], mostTokens: 150)
        var (seen, records) = (cache.growths, 0)
        for step in 0..<140 {
            _ = try run.step()
            if step == 2 || (step > 2 && cache.growths > seen) { records += 1 }
            seen = cache.growths
            #expect(run.records == records, "step \(step)")
        }
        #expect(records >= 3)
    }

    @Test func `ends where passes end: at an id, at the length, at the context`() throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try randomModel(backend)
        let prompts = [randomTokens(3, seed: 1), randomTokens(5, seed: 2), randomTokens(197, seed: 3)]
        let free = try Generator(model, backend: backend, options: GenerationOptions(maximumTokens: 30)).generate(
            prompts)
        for place in [1, 2, 4, 9] {
            let ends = Set(free.prefix(2).map { $0.tokens[place] })
            let results = try both(model, backend, prompts, GenerationOptions(maximumTokens: 30, ends: ends))
            #expect(results[0].generations == results[1].generations)
            #expect(results[0].generations.contains { $0.finish == .end })
        }
    }

    @Test func `is a step behind when it is stopped, and no further`() throws {
        struct Stop: Error {}
        let backend = CPUBackend()
        let generator = try Generator(
            randomModel(backend), backend: backend, options: GenerationOptions(maximumTokens: 30, recordsSteps: true))
        var count = 0
        #expect(throws: Stop.self) {
            _ = try generator.generate([randomTokens(4, seed: 1)]) { _ in
                count += 1
                if count == 7 { throw Stop() }
            }
        }
        #expect(count == 7)
    }

    @Test func `tells of broken weights where passes do`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend)
        let prompt = randomTokens(4, seed: 1)
        let tokens = try Generator(model, backend: backend, options: GenerationOptions(maximumTokens: 20)).generate([
            prompt
        ])
        // The row of a token that is chosen on the way, and not before.
        let chosen = tokens[0].tokens
        let place = try #require(
            chosen.indices.dropFirst(3).first { !chosen[..<$0].contains(chosen[$0]) && !prompt.contains(chosen[$0]) })
        let table = try #require(model.embed?.embedding.table)
        try table.withWeights(on: backend.stream) {
            backend.fill($0[Int(chosen[place])..<Int(chosen[place]) + 1], with: .nan)
        }
        let errors = [true, false].map { recordsSteps in
            let options = GenerationOptions(maximumTokens: 20, recordsSteps: recordsSteps)
            return #expect(throws: InferenceError.self) {
                _ = try Generator(model, backend: backend, options: options).generate([prompt])
            }
        }
        #expect(errors.allSatisfy { "\($0.map { "\($0)" } ?? "")".contains("is nan at position") })
        #expect("\(String(describing: errors[0]))" == "\(String(describing: errors[1]))")
    }
}
