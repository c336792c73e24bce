import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusData

extension ScratchFolder {
    func bytes(_ name: String) throws -> [UInt8] { try MappedFile(path: file(name)).withUnsafeBytes { Array($0) } }

    /// Writes a file of JSONL, a document a line.
    func writeLines(_ name: String, _ documents: [String]) throws -> String {
        try write(name, text: documents.map { "{\"id\": 7, \"text\": \(jsonString($0))}\n" }.joined())
    }

    /// Prepares `inputs` into the folder `name`.
    @discardableResult
    func prepare(
        _ inputs: [String], _ name: String, format: InputFormat = .auto, heldOut: Double = 0,
        tokensPerShard: Int = 1 << 20, threads: Int = 2, vocabulary: NamedVocabulary = .bytes
    ) throws -> ShardSet {
        let preparation = Preparation(
            inputs: inputs, format: format, vocabulary: vocabulary, heldOut: heldOut, tokensPerShard: tokensPerShard)
        let manifest = try preparation.write(to: file(name), pool: ThreadPool(threadCount: threads))
        let corpus = try ShardSet(path: file(name))
        #expect(corpus.manifest == manifest)
        return corpus
    }
}

extension TokenSource {
    /// Its documents, ends included.
    func documents() throws -> [[Int32]] {
        var begin = 0
        return try documentStarts(in: 0..<count).map { end in
            defer { begin = end }
            return try tokens(begin..<end)
        }
    }
}

/// The tokens of documents of text.
func byteDocuments(_ texts: [String]) -> [[Int32]] { texts.map { $0.utf8.map(Int32.init) + [256] } }

/// Documents of words, of very different lengths; the same for one seed.
func sampleTexts(_ count: Int, seed: UInt64) -> [String] {
    var random = SeededGenerator(seed: seed)
    let words = ["swift", "martin", "größer", "翼を持つ", "\n", "a\tb", "\"quoted\"", "🪶", "x"]
    return (0..<count).map { index in
        let length = Int.random(in: 1...(index % 10 == 0 ? 400 : 12), using: &random)
        return "\(index) "
            + (0..<length).map { _ in words[Int.random(in: 0..<words.count, using: &random)] }
            .joined(separator: " ")
    }
}

/// Ids of four bytes: each pair of bytes is one.
struct PairVocabulary: Vocabulary {
    var size: Int { 70_000 }
    var endOfDocument: Int32? { nil }

    func encode(_ bytes: [UInt8]) -> [Int32] {
        stride(from: 0, to: bytes.count, by: 2).map { first in
            Int32(bytes[first]) << 8 | Int32(first + 1 < bytes.count ? bytes[first + 1] : 0)
        }
    }

    func bytes(of id: Int32) -> [UInt8] { [UInt8(id >> 8), UInt8(id & 0xFF)] }

    static let named = NamedVocabulary(
        vocabulary: PairVocabulary(),
        identity: VocabularyIdentity(name: "pairs", size: 70_000, endOfDocument: nil, digest: 1), file: nil)
}
