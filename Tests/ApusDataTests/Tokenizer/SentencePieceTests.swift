import Foundation
import Testing

@testable import ApusData

/// SentencePiece models through the library, beside its Python package.
@Suite struct SentencePieceTests {
    @Test(
        .enabled(if: TokenizerPeer.isThere, TokenizerPeer.needs), arguments: ["bpe", "unigram"])
    func `a model gives the ids and text of its own package`(kind: String) throws {
        let peer = try TokenizerPeer.shared.get()
        let base = "\(peer.folder)/pieces-\(kind)"
        let documents = FuzzedText.documents(1500, seed: 23)
        try Data(Blocks.joined(documents)).write(to: URL(fileURLWithPath: base + ".in"))
        let texts = ["en", "de", "ja"].map { "\(peer.folder)/text/\($0).txt" }
        try TokenizerPeer.script(["pieces", base + ".model", base + ".in", base + ".out"] + texts + ["--kind", kind])
        let expected = Blocks.cut([UInt8](try Data(contentsOf: URL(fileURLWithPath: base + ".out"))))
        try #require(expected.count == 2 * documents.count)

        let vocabulary = try SentencePieceVocabulary(file: base + ".model")
        #expect(vocabulary.size == 2000 && vocabulary.endOfDocument == 2)
        for (index, document) in documents.enumerated() {
            let ids = vocabulary.encode(document)
            #expect(ids == Blocks.ids(expected[2 * index]))
            #expect(vocabulary.text(of: ids) == String(decoding: expected[2 * index + 1], as: UTF8.self))
        }
        // Control symbols are text; a symbol that the model's maker defined is one id.
        let ids = vocabulary.encode("<s>a</s><sep>")
        #expect(ids.last == 3 && !ids.contains(1) && !ids.contains(2))
        #expect(vocabulary.bytes(of: 2) == [] && vocabulary.bytes(of: -1) == [] && vocabulary.bytes(of: 2000) == [])
        #expect(vocabulary.text(of: vocabulary.encode([0xFF, 0x61])) == "\u{FFFD}a")
        var decoder = StreamingDecoder()
        let sample = vocabulary.encode("日本語 é 👩‍🚀")
        #expect((sample.map { decoder.append($0, of: vocabulary) } + [decoder.finish()]).joined() == "日本語 é 👩‍🚀")
    }

    @Test func `what is no model is refused, and so is a missing library`() throws {
        let error = #expect(throws: TokenizerError.self) { try SentencePieceVocabulary(file: #filePath) }
        let text = try #require(error?.description)
        switch SentencePieceLibrary.shared {
        case .success: #expect(text.contains("no SentencePiece model"))
        case .failure: #expect(text.contains("libsentencepiece is") && text.contains("What works"))
        }
        #expect(throws: TokenizerError.self) { try SentencePieceVocabulary(file: "/nowhere.model") }
    }
}
