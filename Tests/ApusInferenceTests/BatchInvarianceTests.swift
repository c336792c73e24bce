import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusInference

/// `batch_invariant`: a token's logits have the same bits whoever is beside it and however the passes are cut.
@Suite struct `Batch invariance` {
    /// Logits (T, V) of every token of a sequence, read in pieces of the given lengths, beside other sequences.
    private func logits(
        _ tokens: [Int32], pieces: [Int], beside others: [[Int32]], _ model: Transformer, _ backend: CPUBackend
    ) throws -> [Float] {
        let cache = try BlockCache(BlockCache.Layout(model), backend: backend)
        let pass = Pass(model: model, backend: backend)
        let own = cache.addSequence()
        var first = 0
        var result: [Float] = []
        for (step, length) in pieces.enumerated() {
            // Another neighbour joins in each of the first steps and then stays out, so the batch keeps changing.
            let neighbour = others.isEmpty ? nil : others[step % others.count]
            let piece = Array(tokens[first..<first + length])
            let batch = neighbour.map { [$0, piece] } ?? [piece]
            let names = neighbour == nil ? [own] : [cache.addSequence(), own]
            let found = try pass.logits(batch, sequences: names, cache)
            result += found[found.shape[0] - length..<found.shape[0]].floats()
            first += length
        }
        return result
    }

    private func check(_ model: Transformer, _ backend: CPUBackend, vocabulary: Int, length: Int) throws {
        let tokens = randomTokens(length, vocabulary: vocabulary, seed: 5)
        let alone = try Pass(model: model, backend: backend).logits([tokens]).floats()
        let others = [1, 19, 40].map { randomTokens($0, vocabulary: vocabulary, seed: UInt64($0)) }
        let uneven = [1, length / 2 - 1, 3, length - length / 2 - 3]
        for (name, pieces) in [
            ("at once", [length]), ("token by token", Array(repeating: 1, count: length)), ("cut", uneven),
        ] {
            for others in [[], others] {
                let found = try logits(tokens, pieces: pieces, beside: others, model, backend)
                #expect(found.map(\.bitPattern) == alone.map(\.bitPattern), "\(name), beside \(others.count)")
            }
        }
        let batch = try Pass(model: model, backend: backend).logits(others + [tokens])
        #expect(Array(batch.floats().suffix(alone.count)).map(\.bitPattern) == alone.map(\.bitPattern), "in a batch")
    }

    @Test(arguments: GoldenGeneration.families)
    func `holds for golden models`(family: String) throws {
        let golden = try GoldenGeneration(family, batchInvariant: true)
        try check(golden.model, golden.backend, vocabulary: 96, length: 37)
    }

    @Test(arguments: [Precision.f32, .bf16], [1, 2, 3])
    func `holds for random models in both types and on any number of threads`(precision: Precision, threads: Int) throws
    {
        let backend = CPUBackend(threadCount: threads, batchInvariant: true)
        let model = try randomModel(backend, precision: precision)
        try check(model, backend, vocabulary: 96, length: 150)
    }

    @Test(arguments: [Precision.f32, .bf16])
    func `holds for products that are cut in every extent`(precision: Precision) throws {
        let backend = CPUBackend(batchInvariant: true)
        let model = try randomModel(backend, vocabulary: 1031, context: 80, precision: precision, width: 696)
        try check(model, backend, vocabulary: 1031, length: 75)
    }

    @Test func `is within rounding on the default backend`() throws {
        let backend = CPUBackend()
        let model = try randomModel(backend)
        let tokens = randomTokens(150, seed: 5)
        let alone = try Pass(model: model, backend: backend).logits([tokens]).floats()
        let found = try logits(
            tokens, pieces: Array(repeating: 1, count: 150), beside: [randomTokens(40, seed: 1)], model, backend)
        #expect(relativeError(found, alone.map(Double.init)) < 1e-5)
    }
}
