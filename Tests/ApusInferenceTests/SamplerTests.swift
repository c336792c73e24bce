import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusInference

@Suite struct `The sampler` {
    private let backend = CPUBackend(threadCount: 1)

    /// The tokens chosen from one row of logits at `count` positions.
    private func choices(
        _ logits: [Float], _ options: SamplingOptions, count: Int, sequence: Int = 0
    ) throws -> [Int32] {
        let row = try backend.allocator.tensor(logits, Shape(1, logits.count))
        let sampler = try Sampler(options)
        return try (0..<count).map { position in
            try sampler.choose(row, [Sampler.Place(sequence: sequence, position: position)], backend)[0]
        }
    }

    private func softmax(_ logits: [Float], temperature: Double) -> [Double] {
        let weights = logits.map { exp(Double($0) / temperature) }
        let total = weights.reduce(0, +)
        return weights.map { $0 / total }
    }

    /// Pearson's statistic of `found` against `expected`; ids that cannot occur must not.
    private func chiSquare(_ found: [Int32], _ expected: [Double]) -> Double {
        var counts = [Double](repeating: 0, count: expected.count)
        for id in found { counts[Int(id)] += 1 }
        return zip(counts, expected).reduce(0) { sum, pair in
            let mean = pair.1 * Double(found.count)
            return mean == 0 ? sum + (pair.0 > 0 ? .infinity : 0) : sum + (pair.0 - mean) * (pair.0 - mean) / mean
        }
    }

    static let logits: [Float] = [0.3, 2, -1, 1.5, 0.3, -3, 1, 0]

    @Test(arguments: [0.5, 1, 2.5] as [Float])
    func `draws as often as the probabilities say`(temperature: Float) throws {
        let found = try choices(Self.logits, SamplingOptions(temperature: temperature, seed: 3), count: 20_000)
        // 99.9 % of correct samplers stay below 24.3 with 7 degrees of freedom; the draws are fixed by the seed.
        let expected = softmax(Self.logits, temperature: Double(temperature))
        #expect(chiSquare(found, expected) < 24.3)
        let other = softmax(Self.logits, temperature: Double(temperature) * 1.15)
        #expect(chiSquare(found, other) > 24.3, "the test would not notice another temperature")
    }

    @Test func `keeps the k highest, equal ones by lower id`() throws {
        let found = try choices(Self.logits, SamplingOptions(temperature: 2, topK: 4, seed: 1), count: 4000)
        #expect(Set(found) == [1, 3, 6, 0])
        var expected = softmax(Self.logits, temperature: 2)
        for id in [2, 4, 5, 7] { expected[id] = 0 }
        let total = expected.reduce(0, +)
        // 99.9 % with 3 degrees of freedom.
        #expect(chiSquare(found, expected.map { $0 / total }) < 16.3)
        #expect(Set(try choices(Self.logits, SamplingOptions(temperature: 2, topK: 1), count: 50)) == [1])
        #expect(Set(try choices(Self.logits, SamplingOptions(temperature: 5, topK: 99), count: 4000)).count == 8)
    }

    /// Probabilities 0.4, 0.3, 0.2, 0.1 in a mixed order.
    static let nucleus: [Float] = [0.2, 0.4, 0.1, 0.3].map { log($0) }

    @Test(
        arguments: [
            (0.05, [1]), (0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 3, 0]), (0.89, [1, 3, 0]),
            (0.91, [0, 1, 2, 3]), (1, [0, 1, 2, 3]),
        ] as [(Float, Set<Int32>)])
    func `keeps the nucleus with the token that crosses p`(p: Float, kept: Set<Int32>) throws {
        #expect(Set(try choices(Self.nucleus, SamplingOptions(temperature: 1, topP: p), count: 1500)) == kept)
    }

    @Test func `counts top-p after top-k and after temperature`() throws {
        // Of the two highest, 4/7 and 3/7: the first alone reaches 0.55.
        let both = SamplingOptions(temperature: 1, topK: 2, topP: 0.55)
        #expect(Set(try choices(Self.nucleus, both, count: 300)) == [1])
        // Hot, all are near a quarter, and 0.6 takes three.
        let hot = SamplingOptions(temperature: 100, topP: 0.6)
        #expect(Set(try choices(Self.nucleus, hot, count: 300)) == [0, 1, 3])
    }

    @Test func `finds in many logits what sorting finds`() {
        let logits = randomValues(5000, seed: 9, scale: 4).map { ($0 * 50).rounded() / 50 }
        let sorted = logits.indices.sorted { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }.map(
            Int32.init)
        logits.withUnsafeBufferPointer { row in
            for k in [1, 2, 3, 50, 999, 4999] {
                let found = Candidates(row, highest: logits[Int(sorted[0])], SamplingOptions(temperature: 1, topK: k))
                #expect(found.ids == Array(sorted.prefix(k)))
            }
            let probabilities = softmax(logits, temperature: 1)
            for p in [0.01, 0.3, 0.9, 0.999] as [Float] {
                let found = Candidates(row, highest: logits[Int(sorted[0])], SamplingOptions(temperature: 1, topP: p))
                var sum = 0.0
                let needed = sorted.prefix { id in
                    defer { sum += probabilities[Int(id)] }
                    return sum < Double(p)
                }
                #expect(found.ids == Array(needed))
            }
        }
    }

    @Test func `takes the highest when greedy, the lower id of equals`() throws {
        #expect(try choices([1, 5, 5, 2], SamplingOptions(), count: 3) == [1, 1, 1])
        #expect(try choices([-.infinity, -4, -.infinity], SamplingOptions(), count: 1) == [1])
        #expect(
            try choices([-.infinity, -4, -.infinity], SamplingOptions(temperature: 3), count: 20).allSatisfy { $0 == 1 }
        )
        #expect(try choices([3, 3.001], SamplingOptions(temperature: 1e-30), count: 50).allSatisfy { $0 == 1 })
    }

    @Test func `repeats by seed, differs by seed, sequence and position`() throws {
        let flat = [Float](repeating: 0, count: 1000)
        let options = SamplingOptions(temperature: 1, seed: 11)
        let first = try choices(flat, options, count: 64)
        #expect(try choices(flat, options, count: 64) == first)
        #expect(Set(first).count > 50)
        #expect(try choices(flat, SamplingOptions(temperature: 1, seed: 12), count: 64) != first)
        #expect(try choices(flat, options, count: 64, sequence: 1) != first)
    }

    /// What a device would fill two words with is what is drawn without one.
    @Test func `draws from the words of a uniform fill`() throws {
        let sampler = try Sampler(SamplingOptions(temperature: 1, seed: 0x9e37_79b9_7f4a_7c15))
        for sequence in [0, 3, 70_000] {
            let stream = RandomStream(seed: sampler.options.seed, purpose: .sampling, step: sequence)
            let words = try backend.empty(Shape(2000), .f32)
            try backend.fillRandom(words, .uniform(low: 0, high: 1), stream: stream, first: 0)
            let values = try backend.floats(words)
            for position in 0..<1000 {
                let draw = sampler.draw(Sampler.Place(sequence: sequence, position: position))
                let (coarse, fine) = (Double(values[2 * position]), Double(values[2 * position + 1]))
                #expect(draw == coarse - 0x1p-24 + fine * 0x1p-23)
            }
        }
    }

    @Test func `chooses for a row what it chooses for the row alone`() throws {
        let rows = (0..<5).map { randomValues(40, seed: UInt64($0), scale: 3) }
        let places = (0..<5).map { Sampler.Place(sequence: 10 - $0, position: $0 * 7) }
        let sampler = try Sampler(SamplingOptions(temperature: 1, topK: 30, topP: 0.95, seed: 2))
        let together = try sampler.choose(
            backend.allocator.tensor(rows.flatMap { $0 }, Shape(5, 40)), places, backend)
        for (index, row) in rows.enumerated() {
            let alone = try sampler.choose(backend.allocator.tensor(row, Shape(1, 40)), [places[index]], backend)
            #expect(alone == [together[index]])
        }
    }

    @Test(
        arguments: [0, 1] as [Float],
        [
            (2, .nan, 2, .nan), (0, .nan, 0, .nan), (3, .infinity, 3, .infinity),
        ] as [(Int, Float, Int32, Float)])
    func `refuses logits that are not finite`(temperature: Float, bad: (Int, Float, Int32, Float)) throws {
        var logits: [Float] = [1, 2, 3, 4]
        logits[bad.0] = bad.1
        let error = #expect(throws: InferenceError.self) {
            try choices(logits, SamplingOptions(temperature: temperature), count: 1, sequence: 6)
        }
        guard case .unusableLogits(6, 0, let id, let value) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(id == bad.2 && value.bitPattern == bad.3.bitPattern)
    }

    @Test func `refuses logits that leave no choice`() throws {
        #expect(throws: InferenceError.unusableLogits(sequence: 0, position: 0, id: 0, value: -.infinity)) {
            try choices([-.infinity, -.infinity], SamplingOptions(temperature: 1), count: 1)
        }
    }
}
