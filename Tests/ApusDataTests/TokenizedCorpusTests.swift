import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusData

/// Corpora prepared with a tokenizer of their own.
@Suite struct TokenizedCorpusTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func tokenizer(_ name: String, _ pattern: BPETrainer.Pattern, seed: UInt64 = 30) throws -> String {
        let texts = sampleTexts(400, seed: seed).map { Array($0.utf8) }
        let trainer = BPETrainer(vocabularySize: 600, pattern: pattern)
        try trainer.train(texts: texts, pool: ThreadPool(threadCount: 2)).write(to: scratch.file(name))
        return scratch.file(name)
    }

    /// Pieces of a long text are encoded one by one: the result is that of the whole all the same.
    @Test(arguments: BPETrainer.Pattern.allCases)
    func `documents are encoded as the tokenizer does, long ones too`(_ pattern: BPETrainer.Pattern) throws {
        let named = try NamedVocabulary.open(tokenizer("tokenizer.json", pattern))
        let texts = sampleTexts(200, seed: 31)
        let long = sampleTexts(30_000, seed: 32).joined(separator: "\n")
        #expect(long.utf8.count > 3 * DocumentReader.pieceBytes)
        let inputs = try [scratch.writeLines("l.jsonl", texts), scratch.write("long.txt", text: long)]
        let corpus = try scratch.prepare(inputs, "out", vocabulary: named)
        let end = try #require(named.identity.endOfDocument)
        let expected = (texts + [long]).map { named.vocabulary.encode(Array($0.utf8)) + [end] }
        #expect(try corpus.training.documents() == expected)
        #expect(corpus.manifest.vocabulary == named.identity)
        let reopened = try corpus.vocabulary()
        #expect(reopened.identity.digest == named.identity.digest)
        #expect(reopened.vocabulary.text(of: expected[0].dropLast()) == texts[0])
    }

    @Test func `another tokenizer in the folder is refused`() throws {
        let named = try NamedVocabulary.open(tokenizer("tokenizer.json", .gpt2))
        let corpus = try scratch.prepare(
            [scratch.writeLines("l.jsonl", ["one", "two"])], "out", vocabulary: named)
        try corpus.verify()
        _ = try tokenizer("out/tokenizer.json", .gpt2, seed: 33)
        #expect(throws: DataError.self) { try corpus.verify() }
        #expect(throws: DataError.self) { try corpus.vocabulary() }
        unlink(scratch.file("out/tokenizer.json"))
        #expect(throws: DataError.self) { try corpus.vocabulary() }
    }
}
