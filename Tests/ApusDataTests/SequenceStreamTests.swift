import Testing

@testable import ApusData

@Suite struct SequenceStreamTests {
    /// Tokens that are their own places, from 100 on.
    private func stream(
        _ count: Int, length: Int = 4, seed: UInt64? = nil, from first: Int = 0
    ) throws -> SequenceStream {
        let tokens = (0..<first + count).map { Int32(100 + $0 - first) }
        return try SequenceStream(
            tokens[first...], sequenceLength: length, shuffleSeed: seed, path: "book.txt", part: "training")
    }

    @Test(arguments: [(5, 1), (8, 1), (9, 2), (12, 2), (13, 3)])
    func `as many sequences as fit with the token after them`(_ tokens: Int, _ count: Int) throws {
        #expect(try stream(tokens).count == count)
    }

    @Test func `targets are inputs one token on, a slice's own start counts`() throws {
        for first in [0, 7] {
            let batch = try stream(13, from: first).sequences(0..<3)
            #expect(batch.inputs == (100..<112).map(Int32.init))
            #expect(batch.targets == batch.inputs.map { $0 + 1 })
            #expect(batch.documents == nil)
        }
    }

    @Test(arguments: [nil, 1, 99] as [UInt64?])
    func `each sequence comes once an epoch`(_ seed: UInt64?) throws {
        let stream = try stream(4 * 37 + 1, seed: seed)
        for epoch in 0..<3 {
            let places = (epoch * 37..<(epoch + 1) * 37).map { stream.index(at: $0) }
            #expect(Set(places) == Set(0..<37))
            #expect((places == Array(0..<37)) == (seed == nil))
        }
    }

    @Test func `the order is a function of seed, epoch and place`() throws {
        let first = try stream(401, seed: 5)
        let same = try stream(401, seed: 5)
        let other = try stream(401, seed: 6)
        let order = (0..<200).map { first.index(at: $0) }
        #expect((0..<200).reversed().map { same.index(at: $0) } == order.reversed())
        #expect((0..<200).map { other.index(at: $0) } != order)
        #expect(order[..<100] != order[100...].prefix(100))
        // However the places are cut into batches.
        let whole = try first.sequences(90..<110)
        let parts = try [90..<95, 95..<96, 96..<110].map { try first.sequences($0) }
        #expect(parts.flatMap(\.inputs) == whole.inputs)
        #expect(parts.flatMap(\.targets) == whole.targets)
    }

    @Test(arguments: [0, 1, 4])
    func `text without a whole sequence is refused`(_ tokens: Int) {
        let error = #expect(throws: DataError.self) { try stream(tokens) }
        #expect(error == .tooShort(path: "book.txt", tokens: tokens, needed: 5, part: "training"))
        let text = error?.description ?? ""
        #expect(
            text.contains("'book.txt' has \(tokens) tokens of training text") && text.contains("data.sequence_length"))
    }
}
