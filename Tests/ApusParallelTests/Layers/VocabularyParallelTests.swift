import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusParallel

// Shape letters: T tokens, V vocabulary, D model width, N ranks.

@Suite struct VocabularyParallelTests {
    /// What a loss yields on one rank.
    private struct Found: Sendable {
        let total: Float
        let perToken: [Float]
        let dx: [Float]
        let weight: GradientPiece
    }

    private static let width = 6

    /// - Parameter scale: Of the states: with 60 logits reach hundreds.
    private static func loss(
        vocabulary: Int, targets: [Int], chunk: Int, scale: Float, over group: (any Collective)?
    ) throws -> Found {
        let backend = CPUBackend(threadCount: 1)
        let shard = group.map { Shard(dimension: 0, range: $0.ownShare(ofVocabulary: vocabulary)) }
        let weight = Parameter(
            "head", Shape(vocabulary, width), initializer: .normal(deviation: 1), shard: shard)
        let store = try ParameterStore([weight], backend: backend, precision: .f32, isTrained: true)
        try store.initialize(seed: 3, backend: backend)
        let local = LanguageModelLoss(weight: weight, chunk: chunk)
        let layer: any LossLayer =
            group.map {
                VocabularyParallelLoss(
                    local, vocabulary: vocabulary, group: $0,
                    boundary: DividedLayerBoundary(group: $0, dividesTokens: false, layer: nil))
            } ?? local
        let tape = Tape(backend: backend)
        let x = tape.leaf(try backend.allocator.random(Shape(targets.count, width), seed: 9, scale: scale))
        let result = try layer(
            layer.enter(x, on: tape), targets: backend.allocator.integers(targets), scale: 0.5, on: tape)
        try tape.addRoot(result.total, seed: 2)
        try tape.backward()
        return Found(
            total: result.total.tensor.floats()[0], perToken: result.perToken.floats(),
            dx: tape.gradient(of: x)?.floats() ?? [], weight: try GradientPiece(weight))
    }

    @Test(arguments: [1, 2, 3, 4], [4, 7, 16])
    func `cross-entropy is that of one rank`(ranks: Int, vocabulary: Int) throws {
        let targets = (0..<11).map { $0 % 4 == 2 ? -1 : ($0 * 5) % vocabulary }
        for (chunk, scale) in [(64, 1), (4, 1), (4, 60), (1, 60)] as [(Int, Float)] {
            let whole = try Self.loss(
                vocabulary: vocabulary, targets: targets, chunk: chunk, scale: scale, over: nil)
            let found = try InProcess.run(ranks: ranks) {
                try Self.loss(vocabulary: vocabulary, targets: targets, chunk: chunk, scale: scale, over: $0)
            }
            for rank in found {
                expectClose([rank.total], [Double(whole.total)], within: 1e-5, "loss")
                expectClose(rank.perToken, whole.perToken.map(Double.init), within: 1e-5, "losses")
                expectClose(rank.dx, whole.dx.map(Double.init), within: 1e-5, "gradient of the states")
                #expect(rank.perToken[2] == 0 && rank.dx[2 * Self.width..<3 * Self.width].allSatisfy { $0 == 0 })
            }
            expectClose(
                whole.weight.values, joined(found.map(\.weight), "head"), within: 1e-5, "gradient of the weights")
        }
    }

    @Test func `all targets ignored`() throws {
        let found = try InProcess.run(ranks: 2) {
            try Self.loss(vocabulary: 5, targets: [-1, -1], chunk: 1, scale: 1, over: $0)
        }
        #expect(found.allSatisfy { $0.total == 0 && $0.dx.allSatisfy { $0 == 0 } })
    }

    @Test(arguments: [1, 2, 3, 5, 8])
    func `shares cover the vocabulary, and owners own`(ranks: Int) throws {
        for entries in [ranks, ranks + 1, 23, 64] where entries >= ranks {
            let shares = try InProcess.run(ranks: ranks) { group in
                let owners = (0..<entries).map { group.owner(of: $0, inVocabulary: entries) }
                return (group.ownShare(ofVocabulary: entries), owners)
            }
            #expect(shares.flatMap { Array($0.0) } == Array(0..<entries))
            #expect(shares.allSatisfy { !$0.0.isEmpty })
            for (rank, share) in shares.enumerated() {
                for owners in shares.map(\.1) { #expect(share.0.allSatisfy { owners[$0] == rank }) }
            }
        }
    }
}
