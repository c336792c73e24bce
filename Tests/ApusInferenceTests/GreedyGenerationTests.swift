import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

@Suite struct `Greedy generation` {
    @Test(arguments: GoldenGeneration.families, [true, false])
    func `gives the tokens of transformers, alone and together`(family: String, keepsKeys: Bool) throws {
        let golden = try GoldenGeneration(family)
        let options = GenerationOptions(maximumTokens: 16, keepsKeys: keepsKeys)
        let generator = try Generator(golden.model, backend: golden.backend, options: options)
        #expect(try generator.generate(golden.prompts).map(\.tokens) == golden.continuations)
        for (prompt, continuation) in zip(golden.prompts, golden.continuations) {
            let alone = try generator.generate([prompt])
            #expect(alone == [Generation(tokens: continuation, finish: .length)])
        }
    }

    @Test(
        arguments: [
            (.f32, .rotary(theta: 10_000), nil), (.bf16, .rotary(theta: 10_000), nil), (.f32, .learned, nil),
            (.f32, .rotary(theta: 10_000), 24),
        ] as [(Precision, ModelConfiguration.Position, Int?)])
    func `with the cache is that without`(
        precision: Precision, position: ModelConfiguration.Position, window: Int?
    ) throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try randomModel(backend, precision: precision, position: position, slidingWindow: window)
        let prompts = [1, 16, 17, 70, 33].enumerated().map { randomTokens($1, seed: UInt64($0)) }
        let plain = GenerationOptions(maximumTokens: 40, keepsKeys: false)
        let expected = try Generator(model, backend: backend, options: plain).generate(prompts)
        #expect(Set(expected.flatMap(\.tokens)).count > 5, "the model repeats itself, which proves little")
        for (blockSize, passTokens, cacheTokens) in [(16, 8192, nil), (64, 8192, nil), (23, 13, nil), (16, 8192, 240)] {
            let options = GenerationOptions(
                maximumTokens: 40, blockSize: blockSize, cacheTokens: cacheTokens, passTokens: passTokens)
            let found = try Generator(model, backend: backend, options: options).generate(prompts)
            #expect(found == expected, "blocks of \(blockSize), passes of \(passTokens)")
        }
    }

    @Test(arguments: ShortcutConfiguration.Position.allCases, [false, true])
    func `with experts that read an earlier state is that without a cache`(
        position: ShortcutConfiguration.Position, isDual: Bool
    ) throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try shortcutModel(backend, ShortcutConfiguration(position: position, isDual: isDual))
        let prompts = [1, 16, 33].enumerated().map { randomTokens($1, seed: UInt64($0)) }
        let plain = GenerationOptions(maximumTokens: 24, keepsKeys: false)
        let expected = try Generator(model, backend: backend, options: plain).generate(prompts)
        #expect(Set(expected.flatMap(\.tokens)).count > 5, "the model repeats itself, which proves little")
        for passTokens in [8192, 13] {
            let options = GenerationOptions(maximumTokens: 24, blockSize: 16, passTokens: passTokens)
            let found = try Generator(model, backend: backend, options: options).generate(prompts)
            #expect(found == expected, "passes of \(passTokens)")
        }
    }

    @Test func `of different lengths together is that alone`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend)
        let prompts = (1...9).map { randomTokens($0 * $0, seed: UInt64($0)) }
        let generator = try Generator(model, backend: backend, options: GenerationOptions(maximumTokens: 20))
        let together = try generator.generate(prompts)
        for (prompt, expected) in zip(prompts, together) { #expect(try generator.generate([prompt]) == [expected]) }
    }

    @Test func `ends at an end id, at the length and at the context, each sequence for itself`() throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try randomModel(backend)
        let prompts = [randomTokens(3, seed: 1), randomTokens(5, seed: 2), randomTokens(197, seed: 3)]
        let free = try Generator(model, backend: backend, options: GenerationOptions(maximumTokens: 30)).generate(
            prompts)
        #expect(free.map(\.finish) == [.length, .length, .context])
        #expect(free.map(\.tokens.count) == [30, 30, 3])
        let end = try #require(free[0].tokens.dropFirst(4).first)
        let options = GenerationOptions(maximumTokens: 30, ends: [end])
        let ended = try Generator(model, backend: backend, options: options).generate(prompts)
        for (before, after) in zip(free, ended) {
            let place = before.tokens.firstIndex(of: end)
            #expect(after.tokens == place.map { Array(before.tokens[...$0]) } ?? before.tokens)
            #expect(after.finish == (place == nil ? before.finish : .end))
        }
        #expect(ended[0].finish == .end && ended[0].tokens.count <= 5)
    }

    @Test func `streams every token once, in order, with the reason at the end`() throws {
        let golden = try GoldenGeneration("mixtral")
        let generator = try Generator(
            golden.model, backend: golden.backend, options: GenerationOptions(maximumTokens: 16))
        var streamed: [[GeneratedToken]] = [[], []]
        let results = try generator.generate(golden.prompts) { streamed[$0.prompt].append($0) }
        for (tokens, result) in zip(streamed, results) {
            #expect(tokens.map(\.id) == result.tokens)
            #expect(tokens.dropLast().allSatisfy { $0.finish == nil } && tokens.last?.finish == .length)
        }
    }

    @Test func `leaves nothing in memory, stopped in the middle too`() throws {
        struct Stop: Error {}
        let golden = try GoldenGeneration("olmoe")
        let generator = try Generator(
            golden.model, backend: golden.backend, options: GenerationOptions(maximumTokens: 16))
        try expectNoLeak(in: golden.backend.allocator) { _ = try generator.generate(golden.prompts) }
        expectNoLeak(in: golden.backend.allocator) {
            var count = 0
            #expect(throws: Stop.self) {
                try generator.generate(golden.prompts) { _ in
                    count += 1
                    if count == 7 { throw Stop() }
                }
            }
            #expect(count == 7)
        }
        let again = try generator.generate(golden.prompts)
        #expect(again.map(\.tokens) == golden.continuations)
    }

    @Test func `of no prompts is nothing`() throws {
        let golden = try GoldenGeneration("mixtral")
        let generator = try Generator(golden.model, backend: golden.backend, options: GenerationOptions())
        #expect(try generator.generate([[Int32]]()).isEmpty)
    }
}
