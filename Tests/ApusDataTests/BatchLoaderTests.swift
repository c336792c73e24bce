import Glibc
import Testing

@testable import ApusData

@Suite struct BatchLoaderTests {
    /// A source that takes its time, and fails from `limit` on.
    private struct SlowSource: TokenSource {
        let count: Int
        var limit = Int.max
        var delay: UInt32 = 0

        func read(_ range: Range<Int>, into target: UnsafeMutableBufferPointer<Int32>) throws {
            if range.upperBound > limit { throw DataError.fileChanged(path: "slow", what: "has ended") }
            usleep(delay)
            for (index, place) in range.enumerated() { target[index] = Int32(place) }
        }

        func documentStarts(in range: Range<Int>) -> [Int] { [] }
    }

    private func stream(_ source: SlowSource, seed: UInt64? = 3) throws -> SequenceStream {
        try SequenceStream(
            [SequenceStream.Source(path: "slow", tokens: source)], sequenceLength: 8, shuffleSeed: seed,
            part: "training")
    }

    @Test(arguments: [0, 400] as [UInt32])
    func `batches are those of the stream, whoever waits`(_ delay: UInt32) throws {
        let stream = try stream(SlowSource(count: 4001, delay: delay))
        let loader = BatchLoader(stream, batch: 6, firstStep: 0)
        for step in 0..<40 {
            usleep(step % 5 == 0 ? 2000 : 0)
            #expect(try loader.next() == [stream.sequences(step * 6..<(step + 1) * 6)])
        }
    }

    @Test(arguments: [1, 2, 3, 6])
    func `ranks together read what one does, resumed anywhere`(_ ranks: Int) throws {
        let stream = try stream(SlowSource(count: 4001))
        let size = 6 / ranks
        let loaders = (0..<ranks).map { rank in
            BatchLoader(
                stream, batch: 6, parts: (0..<size).map { $0 * ranks + rank..<$0 * ranks + rank + 1 }, firstStep: 17)
        }
        let whole = BatchLoader(stream, batch: 6, firstStep: 17)
        for _ in 0..<20 {
            let parts = try loaders.map { try $0.next() }
            let batch = try whole.next()[0]
            // Pass by pass, the ranks' sequences follow each other.
            let dealt = (0..<size).flatMap { pass in parts.map { $0[pass] } }
            #expect(dealt.flatMap(\.inputs) == batch.inputs && dealt.flatMap(\.targets) == batch.targets)
        }
    }

    @Test func `a failure comes in its turn and stays`() throws {
        let loader = BatchLoader(
            try stream(SlowSource(count: 4001, limit: 100), seed: nil), batch: 4, firstStep: 0)
        for _ in 0..<3 { #expect(try loader.next()[0].inputs.count == 32) }
        for _ in 0..<3 { #expect(throws: DataError.self) { try loader.next() } }
    }

    @Test func `a loader that nobody reads ends`() throws {
        let stream = try stream(SlowSource(count: 4001, delay: 100))
        for _ in 0..<50 { _ = BatchLoader(stream, batch: 4, firstStep: 0) }
    }
}
