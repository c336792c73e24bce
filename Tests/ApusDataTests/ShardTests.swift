import ApusTensor
import ApusTestSupport
import Glibc
import Synchronization
import Testing

@testable import ApusData

@Suite struct ShardTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    /// Any range reads as it does from memory, at all shard ends too.
    @Test func `ranges and documents are those of the same tokens in memory`() throws {
        let texts = sampleTexts(400, seed: 8)
        let corpus = try scratch.prepare([scratch.writeLines("l.jsonl", texts)], "out", tokensPerShard: 700)
        #expect(corpus.manifest.shards.count > 20)
        let part = corpus.training
        let all = byteDocuments(texts)
        let ends = all.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1.count) }.dropFirst()
        let memory = MemoryTokens(all.flatMap(\.self)[...], documentEnds: Array(ends))
        #expect(part.count == memory.count)
        #expect(part.documentCount == texts.count)
        let found = try (0..<texts.count).map { try part.tokens(part.document($0)) }
        #expect(found == all)
        var random = SeededGenerator(seed: 1)
        for _ in 0..<2000 {
            let first = Int.random(in: 0..<part.count, using: &random)
            let range = first..<Int.random(in: first...min(part.count, first + 3000), using: &random)
            if range.isEmpty { continue }
            #expect(try part.tokens(range) == memory.tokens(range))
            #expect(try part.documentStarts(in: range) == memory.documentStarts(in: range))
        }
    }

    @Test(arguments: [1, 500, 32_768, 32_769, 70_000])
    func `more tokens than one piece are read piece by piece`(_ length: Int) throws {
        let count = 100_000
        let text = try scratch.write("t.txt", (0..<count).map { UInt8(32 + $0 % 90) })
        let corpus = try scratch.prepare([text], "out")
        for first in [0, 1, 777, count - length] {
            let tokens = try corpus.training.tokens(first..<first + length)
            #expect(tokens == (first..<first + length).map { Int32(32 + $0 % 90) })
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
            let scratch = try ScratchFolder()
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

    /// Cut short and written anew while it is read: what was read is what was written, or an error names the file.
    @Test func `a file that changes at any moment is an error, not a signal`() async {
        await #expect(processExitsWith: .success) {
            let scratch = try ScratchFolder()
            let lines = try scratch.writeLines("l.jsonl", sampleTexts(3000, seed: 12))
            let corpus = try scratch.prepare([lines], "out")
            let path = scratch.file("out/\(corpus.manifest.shards[0].file)")
            let whole = try corpus.training.tokens(0..<corpus.training.count)
            let starts = try corpus.training.documentStarts(in: 0..<whole.count)
            let bytes = try scratch.bytes("out/\(corpus.manifest.shards[0].file)")
            let pool = ThreadPool(threadCount: 2)
            let isDone = Atomic<Bool>(false)
            let read = Atomic<Int>(0)
            let refused = Atomic<Int>(0)
            pool.run(parts: 2) { part, _ in
                if part == 0 {
                    var random = SeededGenerator(seed: 13)
                    while !isDone.load(ordering: .relaxed) {
                        truncate(path, Int.random(in: 0..<bytes.count, using: &random))
                        _ = try? scratch.write("out/\(corpus.manifest.shards[0].file)", bytes)
                        usleep(UInt32.random(in: 0...300, using: &random))
                    }
                    return
                }
                for _ in 0..<1500 {
                    do {
                        let part = ShardPart([try ShardFile(path: path)])
                        #expect(try part.tokens(0..<part.count) == whole)
                        #expect(try part.documentStarts(in: 0..<part.count) == starts)
                        read.add(1, ordering: .relaxed)
                    } catch {
                        #expect((error as? DataError)?.description.contains(path) == true, "\(error)")
                        refused.add(1, ordering: .relaxed)
                    }
                }
                isDone.store(true, ordering: .relaxed)
            }
            #expect(refused.load(ordering: .relaxed) > 10, "\(read.load(ordering: .relaxed)) were whole")
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
