import Testing

@testable import ApusData

@Suite struct MixtureTests {
    /// Tokens that are their own places, from `first` on.
    private func source(_ count: Int, from first: Int, weight: Double? = nil) -> SequenceStream.Source {
        let tokens = (first..<first + count).map(Int32.init)
        return SequenceStream.Source(path: "\(first)", tokens: MemoryTokens(tokens[...]), weight: weight)
    }

    @Test(arguments: [[0.5, 0.5], [0.9, 0.1], [0.7, 0.2, 0.0999, 0.0001], [1.0 / 3, 1.0 / 3, 1.0 / 3]])
    func `shares are exact after every block`(_ shares: [Double]) {
        let mixture = SourceMixture(shares: shares, seed: 3)
        var counts = shares.map { _ in 0 }
        let blocks = max(3, 20_000 / mixture.block)
        for block in 0..<blocks {
            for place in block * mixture.block..<(block + 1) * mixture.block {
                let (source, index) = mixture.source(at: place)
                counts[source] += 1
                // Each source's own places come once, block by block.
                #expect(index < counts.count << 32 && index >= 0)
            }
            let places = Double((block + 1) * mixture.block)
            for (count, share) in zip(counts, shares) { #expect(abs(Double(count) - places * share) <= 1) }
        }
    }

    @Test func `each source is read place after place, none left out`() {
        let mixture = SourceMixture(shares: [0.6, 0.3, 0.1], seed: 9)
        let places = 0..<mixture.block * 20
        var indices: [[Int]] = [[], [], []]
        for place in places {
            let (source, index) = mixture.source(at: place)
            indices[source].append(index)
        }
        for list in indices { #expect(Set(list) == Set(0..<list.count)) }
        // And turns are not taken in a fixed order.
        let order = (0..<200).map { mixture.source(at: $0).source }
        #expect(order != (200..<400).map { mixture.source(at: $0).source })
        #expect(order != (0..<200).map { SourceMixture(shares: [0.6, 0.3, 0.1], seed: 8).source(at: $0).source })
        #expect(Set(order) == [0, 1, 2])
    }

    @Test func `far places need no table`() {
        let mixture = SourceMixture(shares: [0.25, 0.75], seed: 1)
        let far = 1 << 45
        let counts = (far..<far + mixture.block * 8).reduce(into: [0, 0]) { $0[mixture.source(at: $1).source] += 1 }
        #expect(abs(counts[0] - mixture.block * 2) <= mixture.block)
        #expect(mixture.source(at: far).index >= far / 4 - mixture.block)
    }

    @Test func `temperature brings shares together`() {
        let weights = [1000.0, 10, 1]
        let plain = SourceMixture.shares(weights: weights, temperature: 1)
        #expect(abs(plain[1] - 10.0 / 1011) < 1e-12)
        let warm = SourceMixture.shares(weights: weights, temperature: 5)
        #expect(abs(warm[0] / warm[1] - 2.5118864315) < 1e-9)
        #expect(abs(warm.reduce(0, +) - 1) < 1e-12)
        let even = SourceMixture.shares(weights: weights, temperature: 1e9)
        #expect(even.allSatisfy { abs($0 - 1.0 / 3) < 1e-6 })
    }

    @Test func `a stream over sources gives each its share, each sequence once an epoch`() throws {
        let sources = [source(401, from: 0, weight: 3), source(81, from: 10_000, weight: 1)]
        let stream = try SequenceStream(sources, sequenceLength: 4, shuffleSeed: 5, mixtureSeed: 5, part: "training")
        #expect(stream.count == 120)
        let batch = try stream.sequences(0..<256)
        let firsts = stride(from: 0, to: batch.inputs.count, by: 4).map { Int(batch.inputs[$0]) }
        let (large, small) = (firsts.filter { $0 < 10_000 }, firsts.filter { $0 >= 10_000 })
        #expect(small.count == 64)
        // 192 of 100 sequences and 64 of 20: whole epochs, and the beginning of another.
        let times = (large + small).reduce(into: [:]) { $0[$1, default: 0] += 1 }
        #expect(times.count == 120)
        #expect(times.allSatisfy { $0.key < 10_000 ? (1...2).contains($0.value) : (3...4).contains($0.value) })
        #expect(batch.targets == batch.inputs.map { $0 + 1 })
        // However it is cut.
        let parts = try [0..<7, 7..<100, 100..<256].map { try stream.sequences($0) }
        #expect(parts.flatMap(\.inputs) == batch.inputs)
    }

    @Test func `without weights a source weighs its tokens`() throws {
        let sources = [source(3001, from: 0), source(1001, from: 10_000)]
        let stream = try SequenceStream(sources, sequenceLength: 4, shuffleSeed: 5, part: "training")
        let inputs = try stream.sequences(0..<1024).inputs
        let share = Double(inputs.count { $0 >= 10_000 }) / Double(inputs.count)
        #expect(abs(share - 1001.0 / 4002) < 0.002, "\(share)")
    }

    @Test func `a source that would hardly be read is refused`() throws {
        let sources = [source(41, from: 0, weight: 1e9), source(41, from: 100, weight: 1)]
        let error = #expect(throws: DataError.self) {
            try SequenceStream(sources, sequenceLength: 4, shuffleSeed: 5, part: "training")
        }
        #expect(error?.description.contains("data.temperature") == true)
    }
}
