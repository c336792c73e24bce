import ApusTensor
import ApusTestSupport
import Foundation
import Testing

@testable import ApusData

/// Side by side with the `tokenizers` library: the same ids, text and vocabularies.
@Suite(.enabled(if: TokenizerPeer.isThere, TokenizerPeer.needs)) struct TokenizerPeerTests {
    private let peer: TokenizerPeer
    private let pool = ThreadPool(threadCount: 2)

    init() throws { peer = try TokenizerPeer.shared.get() }

    /// More than 9 MB in nineteen languages, and code.
    @Test(arguments: TokenizerPeer.styles)
    func `text has the library's ids`(style: String) throws {
        let documents = try peer.texts.map { [UInt8](try Data(contentsOf: URL(fileURLWithPath: $0))) }
        #expect(documents.count == 20 && documents.reduce(0) { $0 + $1.count } > 9_000_000)
        let tokenizer = try Tokenizer(file: peer.path(style))
        let expected = try peer.encode(peer.path(style), documents, plainOnly: true).map(Blocks.ids)
        let found = tokenizer.encodeBatch(documents, pool: pool)
        try #require(found.count == expected.count)
        for (path, (found, expected)) in zip(peer.texts, zip(found, expected)) {
            #expect(found.count > 50_000)
            #expect(found == expected, "\(path), from id \(zip(found, expected).prefix { $0 == $1 }.count) on")
        }
    }

    @Test(arguments: TokenizerPeer.styles)
    func `fuzzed text has the library's ids and comes back as its text`(style: String) throws {
        let documents = FuzzedText.documents(4000, seed: 17)
        let tokenizer = try Tokenizer(file: peer.path(style))
        let expected = try peer.encode(peer.path(style), documents, plainOnly: false)
        try #require(expected.count == 3 * documents.count)
        var differing = 0
        for (index, document) in documents.enumerated() where differing < 5 {
            let plain = tokenizer.encode(document)
            let special = tokenizer.encode(document, options: EncodingOptions(readsSpecial: true, addsTemplate: true))
            let isSame =
                plain == Blocks.ids(expected[3 * index]) && special == Blocks.ids(expected[3 * index + 1])
                && tokenizer.text(of: special) == String(decoding: expected[3 * index + 2], as: UTF8.self)
            #expect(
                isSame,
                "\(String(decoding: document, as: UTF8.self).unicodeScalars.map { String($0.value, radix: 16) })")
            differing += isSame ? 0 : 1
        }
    }

    @Test(arguments: BPETrainer.Pattern.allCases)
    func `training gives the library's vocabulary and merges`(pattern: BPETrainer.Pattern) throws {
        let texts = ["code", "el", "en", "ko"].map { "\(peer.folder)/text/\($0).txt" }
        let path = "\(peer.folder)/trained-\(pattern.rawValue).json"
        let style = pattern == .qwen2 ? "qwen" : pattern.rawValue
        try TokenizerPeer.script(
            ["train", path] + texts
                + [
                    "--vocabulary", "5000", "--least", "2", "--special", "<|endoftext|>", "--special", "<s>", "--style",
                    style,
                ])
        let theirs = try Tokenizer(file: path)
        let trainer = BPETrainer(
            vocabularySize: 5000, specialTokens: ["<|endoftext|>", "<s>"], leastCount: 2, pattern: pattern)
        let ours = try trainer.train(files: texts, pool: pool)
        #expect(ours.tokenCount == 5000 && ours.parts.rules == theirs.parts.rules)
        for id in 0..<Int32(5000) where ours.name(of: id) != theirs.name(of: id) {
            Issue.record("\(id) is \(ours.name(of: id) ?? "nothing") and \(theirs.name(of: id) ?? "nothing")")
        }
    }

    @Test(arguments: TokenizerPeer.styles)
    func `the library reads what is written, with the same ids`(style: String) throws {
        let path = "\(peer.folder)/written-\(style).json"
        let tokenizer = try Tokenizer(file: peer.path(style))
        try tokenizer.write(to: path)
        #expect(try TokenizerPeer.script(["read", path]) == "\(tokenizer.tokenCount)\n")
        let documents = FuzzedText.documents(200, seed: 3)
        #expect(
            try peer.encode(path, documents, plainOnly: false)
                == peer.encode(peer.path(style), documents, plainOnly: false))
    }

    /// Every scalar's classes and composition, which tables hold, are those of the library.
    @Test func `tables are the library's`() throws {
        let root = try #require(repositoryRoot())
        #expect(throws: Never.self) {
            try TokenizerPeer.python(["\(root)/Tools/oracles/tokenizer_tables.py", "--check"])
        }
    }
}
