import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusData

/// Training; side by side with the library in `TokenizerPeerTests`.
@Suite struct BPETrainerTests {
    private let pool = ThreadPool(threadCount: 2)

    private func text(_ seed: UInt64, words: Int) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        let syllables = ["ba", "bo", "bab", "é", "ran", "tor", "to", "x1", "22", "!", "日本"]
        var text = ""
        for _ in 0..<words {
            for _ in 0..<Int.random(in: 1...4, using: &random) { text += random.pick(syllables) }
            text += random.pick([" ", " ", " ", "\n", ".\n"])
        }
        return Array(text.utf8)
    }

    @Test func `the most frequent pair comes first, the lowest ids of equal ones`() throws {
        let trainer = BPETrainer(vocabularySize: 260, specialTokens: ["<|endoftext|>"], leastCount: 2, pattern: .gpt2)
        let tokenizer = try trainer.train(texts: [Array("abab cdcd abab\n".utf8)], pool: pool)
        // a b four times; then ab ab, Ġ with a word of them once and c d twice: the lowest of those that occur twice.
        #expect(
            tokenizer.parts.rules.map { [tokenizer.name(of: Int32($0.left)), tokenizer.name(of: Int32($0.right))] }
                == [["a", "b"], ["c", "d"], ["ab", "ab"]])
        #expect(tokenizer.endOfDocument == 0 && tokenizer.id(of: "!") == 1 && tokenizer.size == 260)
        #expect(tokenizer.encode("abab") == [259])
    }

    @Test(arguments: BPETrainer.Pattern.allCases)
    func `what it learns is what recounting everything learns`(pattern: BPETrainer.Pattern) throws {
        let text = text(3, words: 3000)
        let trainer = BPETrainer(vocabularySize: 400, specialTokens: ["<s>", "</s>"], leastCount: 2, pattern: pattern)
        let tokenizer = try trainer.train(texts: [text], pool: pool)
        let expected = recounted(text, pattern.words, merges: 400 - 258, firstID: 258, tokenizer.parts.tokens)
        #expect(tokenizer.parts.rules == expected)
        #expect(tokenizer.decode(tokenizer.encode(text)) == text)
    }

    /// The definition: count all pairs anew for every merge.
    private func recounted(
        _ text: [UInt8], _ pattern: WordPattern, merges: Int, firstID: Int, _ tokens: TokenTable
    ) -> [MergeRule] {
        var words: [[UInt32]: Int] = [:]
        text.withUnsafeBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return }
            var place = 0
            while place < buffer.count {
                let end = Splitter.words(pattern).pieceEnd(start, place, buffer.count, ScalarClasses.shared.view)
                words[
                    buffer[place..<end].map { UInt32(tokens.id(of: ByteAlphabet.text(of: [$0])) ?? 0) }, default: 0] +=
                    1
                place = end
            }
        }
        var rules: [MergeRule] = []
        while rules.count < merges {
            var counts: [[UInt32]: Int] = [:]
            for (word, count) in words {
                for place in 0..<word.count - 1 { counts[[word[place], word[place + 1]], default: 0] += count }
            }
            let order = counts.sorted { ($1.value, $0.key[0], $0.key[1]) < ($0.value, $1.key[0], $1.key[1]) }
            guard let best = order.first else { break }
            let result = UInt32(firstID + rules.count)
            rules.append(MergeRule(left: best.key[0], right: best.key[1], result: result))
            var merged: [[UInt32]: Int] = [:]
            for (word, count) in words {
                var symbols = word
                var place = 0
                while place + 1 < symbols.count {
                    if Array(symbols[place...place + 1]) == best.key {
                        symbols.replaceSubrange(place...place + 1, with: [result])
                    }
                    place += 1
                }
                merged[symbols, default: 0] += count
            }
            words = merged
        }
        return rules
    }

    @Test func `threads, files and blocks change nothing`() throws {
        // More than one block of a file, and one without a place to cut it.
        let long = (0..<4).flatMap { text(UInt64($0), words: 180_000) }
        let flat = Array(String(repeating: "one line\u{3000}without end ", count: 250_000).utf8)
        #expect(long.count > TextBlocks.blockBytes && flat.count > TextBlocks.blockBytes)
        let scratch = try ScratchFolder()
        let paths = [try scratch.write("long.txt", long), try scratch.write("flat.txt", flat)]
        let trainer = BPETrainer(vocabularySize: 500)
        let fromFiles = try trainer.train(files: paths, pool: pool)
        #expect(try trainer.train(files: paths, pool: ThreadPool(threadCount: 1)).json == fromFiles.json)
        #expect(try trainer.train(texts: [long, flat], pool: pool).json == fromFiles.json)
        #expect(try trainer.train(files: paths.reversed(), pool: pool).json == fromFiles.json)
    }

    @Test func `lines, packed files and folders are read as preparation reads them`() throws {
        let texts = (0..<300).map { String(decoding: text(UInt64($0), words: 40), as: UTF8.self) }
        let scratch = try ScratchFolder()
        let lines = try scratch.writeLines("a.jsonl", texts)
        let trainer = BPETrainer(vocabularySize: 400)
        let expected = try trainer.train(texts: texts.map { Array($0.utf8) }, pool: pool)
        #expect(try trainer.train(files: [lines], pool: pool).json == expected.json)
        try scratch.makeFolder("below")
        for (index, text) in texts.enumerated() { try scratch.write("below/\(index + 1000).txt", text: text) }
        #expect(try trainer.train(files: [scratch.file("below")], pool: pool).json == expected.json)
        let binary = try scratch.write("b.txt", [0x61, 0, 0x61])
        #expect(throws: DataError.binary(path: binary, offset: 1, byte: 0)) {
            try trainer.train(files: [lines, binary], pool: pool)
        }
        let unnamed = try scratch.write("a.json", scratch.bytes("a.jsonl"))
        #expect(throws: DataError.looksLikeLines(path: unnamed)) { try trainer.train(files: [unnamed], pool: pool) }
    }

    @Test func `rare pairs are left, and text may run out`() throws {
        let text = Array("aaaa bb".utf8)
        #expect(try BPETrainer(vocabularySize: 300, leastCount: 2).train(texts: [text], pool: pool).tokenCount == 258)
        #expect(try BPETrainer(vocabularySize: 300, leastCount: 1).train(texts: [text], pool: pool).tokenCount == 261)
    }

    @Test func `what cannot be trained is refused`() {
        for trainer in [
            BPETrainer(vocabularySize: 256), BPETrainer(vocabularySize: 1 << 30),
            BPETrainer(vocabularySize: 300, specialTokens: ["<a>", "<a>"]),
            BPETrainer(vocabularySize: 300, specialTokens: [""]),
        ] {
            #expect(throws: TokenizerError.self) { try trainer.train(texts: [[97]], pool: pool) }
        }
        #expect(throws: TokenizerError.self) { try BPETrainer(vocabularySize: 300).train(texts: [[]], pool: pool) }
        #expect(throws: DataError.self) { try BPETrainer(vocabularySize: 300).train(files: ["/nowhere"], pool: pool) }
    }
}
