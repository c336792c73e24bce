import ApusTensor
import Glibc
import Testing

@testable import ApusData

@Suite struct ShardTests {
    private let scratch: DataScratch

    init() throws { scratch = try DataScratch() }

    /// Any range reads as it does from memory, at all shard ends too.
    @Test(arguments: [1, 3])
    func `ranges and documents are those of the same tokens in memory`(_ windows: Int) throws {
        let texts = sampleTexts(400, seed: 8)
        let corpus = try scratch.prepare([scratch.writeLines("l.jsonl", texts)], "out", tokensPerShard: 700)
        #expect(corpus.manifest.shards.count > 20)
        let cache = MappedWindows(limit: windows)
        let part = ShardPart(
            try corpus.manifest.shards.enumerated().map { number, shard in
                try ShardFile(path: "\(corpus.path)/\(shard.file)", number: number, windows: cache)
            })
        let all = byteDocuments(texts)
        let ends = all.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1.count) }.dropFirst()
        let memory = MemoryTokens(all.flatMap(\.self)[...], documentEnds: Array(ends))
        #expect(part.count == memory.count)
        #expect(part.documentCount == texts.count)
        let found = try (0..<texts.count).map { try part.tokens(part.document($0)) }
        #expect(found == all)
        var random = SeededGenerator(state: 1)
        for _ in 0..<2000 {
            let first = Int.random(in: 0..<part.count, using: &random)
            let range = first..<Int.random(in: first...min(part.count, first + 3000), using: &random)
            if range.isEmpty { continue }
            #expect(try part.tokens(range) == memory.tokens(range))
            #expect(try part.documentStarts(in: range) == memory.documentStarts(in: range))
        }
    }

    @Test func `a shard larger than a window is read across it`() throws {
        let count = MappedWindows.windowBytes / 2 + 100_000
        let text = try scratch.write("t.txt", (0..<count).map { UInt8(32 + $0 % 90) })
        let corpus = try scratch.prepare([text], "out")
        let border = (MappedWindows.windowBytes - ShardHeader.byteCount) / 2
        for first in [0, border - 700, border - 1, border, count - 500] {
            let tokens = try corpus.training.tokens(first..<first + 500)
            #expect(tokens == (first..<first + 500).map { Int32(32 + $0 % 90) })
        }
        #expect(try corpus.training.documentStarts(in: 0..<count) == [])
        #expect(try corpus.training.documentStarts(in: 0..<count + 1) == [count + 1])
    }

    @Test func `the header is what it is described to be`() throws {
        let text = try scratch.write("t.txt", text: "abc")
        _ = try scratch.prepare([text], "out")
        let bytes = try scratch.bytes("out/training-00000.tokens")
        let words: [UInt8] = [97, 0, 98, 0, 99, 0, 0, 1]
        let counts: [[UInt8]] = [[1, 0, 0, 0], [2, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
        let vocabulary: [UInt8] = [1, 1, 0, 0, 0, 1, 0, 0]
        let header = Array("apustokn".utf8) + counts.flatMap(\.self) + vocabulary
        #expect(bytes == header + [UInt8](repeating: 0, count: 24) + words + [4, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test(arguments: [
        ("cut", "bytes, its manifest says"), ("longer", "bytes, its manifest says"), ("gone", "no such file"),
        ("flipped", "checksum"), ("magic", "no shard"), ("counts", "header"), ("version", "version 9"),
    ])
    func `a shard that is not what was written is refused and named`(_ damage: String, _ part: String) throws {
        let corpus = try scratch.prepare(
            [scratch.writeLines("l.jsonl", sampleTexts(50, seed: 9))], "out", tokensPerShard: 500)
        let name = corpus.manifest.shards[1].file
        var bytes = try scratch.bytes("out/\(name)")
        switch damage {
        case "cut": bytes.removeLast(8)
        case "longer": bytes += [0]
        case "flipped": bytes[100] ^= 1
        case "magic": bytes[0] ^= 1
        case "counts": bytes[24] ^= 1
        case "version": bytes[8] = 9
        default: break
        }
        if damage == "gone" { unlink(scratch.file("out/\(name)")) } else { try scratch.write("out/\(name)", bytes) }
        let error = #expect(throws: (any Error).self) { try ShardSet(path: corpus.path).verify() }
        let text = "\(try #require(error))"
        #expect(text.contains(part) && text.contains(name), "\(text)")
    }

    @Test func `a file that changes while it is read is an error, not a signal`() async {
        await #expect(processExitsWith: .success) {
            let scratch = try DataScratch()
            let lines = try scratch.writeLines("l.jsonl", sampleTexts(5000, seed: 10))
            let corpus = try scratch.prepare([lines], "out")
            let path = scratch.file("out/\(corpus.manifest.shards[0].file)")
            let last = corpus.training.count - 100
            #expect(try corpus.training.tokens(last..<last + 10).count == 10)
            #expect(truncate(path, 4096) == 0)
            let cut = #expect(throws: DataError.self) { try corpus.training.tokens(last..<last + 10) }
            #expect(cut?.description.contains("has 4096 now") == true, "\(String(describing: cut))")
            #expect(cut?.description.contains(path) == true)
            #expect(throws: DataError.self) { try corpus.training.documentStarts(in: last..<last + 10) }
        }
    }

    @Test func `a file that is written over is noticed by its time`() throws {
        let corpus = try scratch.prepare([scratch.writeLines("l.jsonl", sampleTexts(50, seed: 11))], "out")
        let name = "out/\(corpus.manifest.shards[0].file)"
        #expect(try corpus.training.tokens(0..<10).count == 10)
        var times = [timespec(tv_sec: 1_000_000, tv_nsec: 5), timespec(tv_sec: 1_000_000, tv_nsec: 5)]
        #expect(utimensat(AT_FDCWD, scratch.file(name), &times, 0) == 0)
        let error = #expect(throws: DataError.self) { try corpus.training.tokens(0..<10) }
        #expect(error?.description.contains("written over") == true)
    }

    @Test func `an id beyond the vocabulary is refused, whatever the checksum`() throws {
        let corpus = try scratch.prepare([scratch.write("t.txt", text: "abcdefgh")], "out")
        let name = "out/\(corpus.manifest.shards[0].file)"
        var bytes = try scratch.bytes(name)
        bytes[64 + 5] = 2
        try scratch.write(name, bytes)
        let damaged = try ShardSet(path: corpus.path)
        #expect(throws: DataError.self) { try damaged.training.tokens(0..<8) }
        #expect(try damaged.training.tokens(3..<8).count == 5)
    }

    @Test func `the checksum of a corpus tells tokens, ends and vocabulary apart`() throws {
        let sums = try [["ab", "c"], ["a", "bc"], ["ab", "d"], ["c", "ab"]].enumerated().map { index, texts in
            try scratch.prepare([scratch.writeLines("\(index).jsonl", texts)], "\(index)").manifest.checksum
        }
        var other = try ShardManifest(folder: scratch.file("0"))
        other.vocabulary.digest ^= 1
        #expect(Set(sums + [other.checksum]).count == 5)
        other.vocabulary.digest ^= 1
        other.sources[0].path = "elsewhere"
        #expect(other.checksum == sums[0])
    }
}
