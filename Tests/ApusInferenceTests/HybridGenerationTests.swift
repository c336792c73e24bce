import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

/// Models of which some layers convolve: what sequences keep of these is what a whole pass would read.
@Suite struct `Generation by a hybrid` {
    private func model(_ backend: CPUBackend, layers: [Int] = [0, 2], precision: Precision = .f32) throws -> Transformer
    {
        let configuration = ModelConfiguration(
            vocabulary: 96, width: 48, heads: 4, keyValueHeads: 2, maximumPositions: 200,
            feedForward: [
                .dense(width: 72), .moe(MoEConfiguration(experts: 5, choices: 2, width: 40)), .dense(width: 72),
            ], initialDeviation: 1.7 / Float(48).squareRoot(),
            convolution: ConvolutionConfiguration(layers: layers, width: 4))
        let model = try Transformer(configuration, backend: backend, precision: precision, isTrained: false)
        try model.store.initialize(seed: 7, backend: backend)
        return model
    }

    @Test(arguments: [[0, 2], [1], [0, 1, 2]], [Precision.f32, .bf16])
    func `with the cache is that without`(layers: [Int], precision: Precision) throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try model(backend, layers: layers, precision: precision)
        let prompts = [1, 2, 16, 33, 3].enumerated().map { randomTokens($1, seed: UInt64($0)) }
        let plain = GenerationOptions(maximumTokens: 24, keepsKeys: false)
        let expected = try Generator(model, backend: backend, options: plain).generate(prompts)
        #expect(Set(expected.flatMap(\.tokens)).count > 5, "the model repeats itself, which proves little")
        // Passes of two and thirteen tokens cut prompts within a convolution's reach; a small cache makes prompts wait.
        for (passTokens, cacheTokens) in [(8192, nil), (13, nil), (2, nil), (8192, 96)] as [(Int, Int?)] {
            let options = GenerationOptions(maximumTokens: 24, cacheTokens: cacheTokens, passTokens: passTokens)
            let found = try Generator(model, backend: backend, options: options).generate(prompts)
            #expect(found == expected, "passes of \(passTokens)")
        }
    }

    @Test func `records no steps, and gives the same when asked to`() throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try model(backend)
        let prompts = [randomTokens(5, seed: 1), randomTokens(9, seed: 2)]
        let found = try [true, false].map { records in
            try Generator(
                model, backend: backend, options: GenerationOptions(maximumTokens: 12, recordsSteps: records)
            ).generate(prompts)
        }
        #expect(found[0] == found[1])
    }

    private struct Refused: Error {}

    @Test func `a step that fails leaves what is kept as it was`() throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try model(backend)
        let tokens = randomTokens(12, seed: 3)
        let pass = Pass(model: model, backend: backend)
        let expected = try pass.logits([tokens]).floats().suffix(96)
        let cache = try BlockCache(BlockCache.Layout(model), backend: backend)
        let sequence = cache.addSequence()
        _ = try pass.logits([Array(tokens[..<9])], sequences: [sequence], cache)
        #expect(throws: Refused.self) {
            try cache.step([BlockCache.Entry(sequence, tokens: 2)]) { layout in
                for layer in [0, 2] {
                    let wrong = try backend.zeros(Shape(layout.tokenCount, 3 * 48), .f32)
                    _ = try cache.extend(layer: layer, rows: wrong, by: 3)
                }
                throw Refused()
            }
        }
        let found = try pass.logits([Array(tokens[9...])], sequences: [sequence], cache).floats().suffix(96)
        #expect(found.map(\.bitPattern) == expected.map(\.bitPattern))
    }

    @Test func `keeps no keys for layers that convolve`() throws {
        let backend = CPUBackend(threadCount: 1)
        let layout = BlockCache.Layout(try model(backend))
        #expect(layout.keyless == [0, 2] && layout.layers == 3)
        let before = backend.allocator.statistics[.keyValueCache]
        let cache = try BlockCache(layout, backend: backend)
        let sequence = cache.addSequence()
        try cache.step([BlockCache.Entry(sequence, tokens: 5)]) { _ in }
        let used = backend.allocator.statistics[.keyValueCache] - before
        // One block of 16 tokens, two heads of 12 numbers, keys and values of one layer, of three.
        let layerBytes = 16 * 24 * 4 * 2
        #expect(used >= layerBytes && used < 2 * layerBytes)
    }
}
