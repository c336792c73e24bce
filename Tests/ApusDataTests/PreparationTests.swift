import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusData

@Suite struct PreparationTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @Test func `documents come back as they were, from every kind of input`() throws {
        let texts = sampleTexts(300, seed: 1)
        mkdir(scratch.file("in"), 0o755)
        mkdir(scratch.file("in/b"), 0o755)
        try scratch.write("in/a.txt", text: texts[0])
        try scratch.write("in/b/z.md", text: texts[1])
        try scratch.write("in/.hidden", text: "no")
        _ = try scratch.writeLines("in/c.jsonl", Array(texts[2..<200]))
        let lone = try scratch.write("lone.txt", text: texts[200])
        let lines = try scratch.writeLines("more.ndjson", Array(texts[201...]))
        let corpus = try scratch.prepare([scratch.file("in"), lone, lines], "out")
        #expect(try corpus.training.documents() == byteDocuments(texts))
        #expect(corpus.heldOut.count == 0)
        let bytes = texts.map(\.utf8.count)
        let sources = corpus.manifest.sources
        #expect(sources.map(\.files) == [3, 1, 1])
        #expect(sources.map(\.documents) == [200, 1, 99])
        #expect(
            sources.map(\.bytes) == [bytes[..<200], bytes[200..<201], bytes[201...]].map { $0.reduce(0, +) })
        #expect(corpus.manifest.tokens(.training) == bytes.reduce(300, +))
        try corpus.verify()
        #expect(try FolderTree.names(in: scratch.path).filter { $0.contains(".tmp-") } == [])
    }

    @Test func `threads change nothing, shards end with documents`() throws {
        let texts = sampleTexts(2000, seed: 2)
        let lines = try scratch.writeLines("l.jsonl", texts)
        let one = try scratch.prepare([lines], "one", heldOut: 0.2, tokensPerShard: 5000, threads: 1)
        let four = try scratch.prepare([lines], "four", heldOut: 0.2, tokensPerShard: 5000, threads: 4)
        #expect(one.manifest == four.manifest)
        #expect(one.manifest.shards.count > 10)
        for shard in one.manifest.shards.dropLast() where shard.part == .training {
            #expect(shard.tokens >= 5000 || shard == one.manifest.shards.last { $0.part == .training })
        }
        let whole = try scratch.prepare([lines], "whole", heldOut: 0.2)
        #expect(try whole.training.documents() == one.training.documents())
        #expect(try whole.heldOut.documents() == one.heldOut.documents())
        #expect(whole.manifest.shards.count == 2)
    }

    @Test func `a wide vocabulary takes four bytes a token and needs no end`() throws {
        let texts = sampleTexts(50, seed: 3)
        let lines = try scratch.writeLines("l.jsonl", texts)
        let corpus = try scratch.prepare([lines], "out", tokensPerShard: 1000, vocabulary: PairVocabulary.named)
        #expect(try corpus.training.documents() == texts.map { PairVocabulary().encode(Array($0.utf8)) })
        let shard = corpus.manifest.shards[0]
        #expect(shard.digest.count >= 64 + 4 * shard.tokens)
    }

    /// Long enough for many pieces, with and without places where a text may be cut.
    @Test(arguments: ["word \n", "no line end at all, 翼 ", "\n\n", "ünï\nçödé\n"])
    func `a long text is one document, cut into pieces without a trace`(_ unit: String) throws {
        let text = Array(String(repeating: unit, count: 3_000_000 / unit.utf8.count).utf8)
        let path = try scratch.write("long.txt", text)
        let corpus = try scratch.prepare([path], "out", tokensPerShard: 1000)
        #expect(corpus.manifest.shards.count == 1)
        #expect(try corpus.training.documents() == [text.map(Int32.init) + [256]])
    }

    @Test func `pieces end at single line ends between visible characters where there are some`() throws {
        let lines = (0..<40_000).map { "line \($0) of a text\($0 % 7 == 0 ? "\n" : "")\($0 % 5 == 0 ? " " : "。")\n" }
        let path = try scratch.write("long.txt", text: lines.joined())
        let reader = DocumentReader([InputFile(path: path, input: 0, isLines: false)])
        var ends = 0
        var before: [UInt8] = []
        while let batch = try reader.batch() {
            for piece in batch.pieces {
                let bytes = Array(batch.bytes[piece.range])
                #expect(bytes.count <= DocumentReader.pieceBytes)
                if !before.isEmpty {
                    ends += 1
                    let around = before.suffix(2) + bytes.prefix(1)
                    #expect(
                        around.map { $0 <= 0x20 } == [false, true, false], "\(before.suffix(8)) \(bytes.prefix(8))")
                }
                before = bytes
            }
        }
        #expect(ends >= 3)
    }

    @Test func `what is held out is a function of content and fraction`() throws {
        let texts = sampleTexts(3000, seed: 4)
        let forward = try scratch.prepare([scratch.writeLines("f.jsonl", texts)], "f", heldOut: 0.1)
        let backward = try scratch.prepare([scratch.writeLines("b.jsonl", texts.reversed())], "b", heldOut: 0.1)
        let heldOut = Set(try forward.heldOut.documents())
        #expect(try Set(backward.heldOut.documents()) == heldOut)
        #expect(heldOut.count > 240 && heldOut.count < 360, "\(heldOut.count)")
        #expect(forward.manifest.documents(.training) + forward.manifest.documents(.heldOut) == 3000)
        // A larger fraction holds out those and more; copies go together.
        let more = try scratch.prepare([scratch.writeLines("m.jsonl", texts + texts)], "m", heldOut: 0.3)
        #expect(try Set(more.heldOut.documents()).isSuperset(of: heldOut))
        #expect(try Set(more.heldOut.documents()).isDisjoint(with: more.training.documents()))
    }

    @Test func `a byte order mark and empty documents are left out`() throws {
        let text = try scratch.write("a.txt", [0xEF, 0xBB, 0xBF, 65, 66])
        let empty = try scratch.write("b.txt", [])
        let lines = try scratch.write(
            "c.jsonl", text: "\u{FEFF}{\"text\": \"C\"}\r\n\n  \n{\"text\": \"\"}\n{\"n\": [1, {}], \"text\": \"D\\n\"}"
        )
        let corpus = try scratch.prepare([text, empty, lines], "out")
        #expect(try corpus.training.documents() == byteDocuments(["AB", "C", "D\n"]))
        #expect(corpus.manifest.sources.map(\.documents) == [1, 0, 2])
    }
}
