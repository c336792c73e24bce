public import ApusTensor

/// Trains byte-level byte-pair encoding on text files; the same text gives the same tokenizer.
///
/// ```swift
/// let tokenizer = try BPETrainer(vocabularySize: 8192).train(files: ["corpus.txt"], pool: ThreadPool())
/// try tokenizer.write(to: "tokenizer.json")
/// ```
public struct BPETrainer: Sendable {
    /// How text is cut into words, which no token reaches over.
    public enum Pattern: String, Sendable, CaseIterable {
        /// Words with the space before them, numbers of any length.
        case gpt2
        /// Words with the sign before them, numbers of up to three digits, line breaks together.
        case llama3
        /// As Llama 3, each digit by itself.
        case qwen2

        var words: WordPattern {
            switch self {
            case .gpt2: .gpt2
            case .llama3: .llama3
            case .qwen2: .qwen2
            }
        }
    }

    /// Tokens in all: special ones, 256 bytes, and merges.
    public var vocabularySize: Int
    /// Ids 0 and up; the first that is the usual name of a document's end is taken for it.
    public var specialTokens: [String]
    /// Rarer pairs are not merged, and the vocabulary may stay smaller than asked for.
    public var leastCount: Int
    /// How text is cut into words.
    public var pattern: Pattern

    /// A training with these settings.
    public init(
        vocabularySize: Int, specialTokens: [String] = ["<|endoftext|>"], leastCount: Int = 2,
        pattern: Pattern = .llama3
    ) {
        self.vocabularySize = vocabularySize
        self.specialTokens = specialTokens
        self.leastCount = leastCount
        self.pattern = pattern
    }

    /// Trains on the documents of files, folders or `-` for standard input: what ``Preparation`` reads.
    ///
    /// They are read in blocks, so memory follows the number of different words.
    ///
    /// - Throws: ``DataError`` for what cannot be read or is no text, ``TokenizerError``.
    public func train(files: [String], format: InputFormat = .auto, pool: ThreadPool) throws -> Tokenizer {
        try check()
        var counts = WordCounts()
        var blocks = try TextBlocks(files, format: format)
        var waiting: [[[UInt8]]] = []
        while let block = try blocks.next() {
            waiting.append(block)
            if waiting.count == 2 * pool.threadCount {
                count(waiting, into: &counts, pool)
                waiting.removeAll()
            }
        }
        count(waiting, into: &counts, pool)
        return try tokenizer(counts)
    }

    /// Trains on texts, each one document.
    ///
    /// - Throws: ``TokenizerError``.
    public func train(texts: [[UInt8]], pool: ThreadPool) throws(TokenizerError) -> Tokenizer {
        try check()
        var counts = WordCounts()
        count(texts.map { [$0] }, into: &counts, pool)
        return try tokenizer(counts)
    }

    private func check() throws(TokenizerError) {
        let least = 256 + specialTokens.count
        guard vocabularySize >= least, vocabularySize <= TokenTable.idLimit else {
            throw .training(
                reason: "a vocabulary of \(vocabularySize) was asked for; 256 bytes and \(specialTokens.count) special "
                    + "tokens need \(least), and \(TokenTable.idLimit) is the most")
        }
        guard Set(specialTokens).count == specialTokens.count, !specialTokens.contains("") else {
            throw .training(reason: "special tokens must be different and not empty: \(specialTokens)")
        }
    }

    /// Counts the words of each block's runs on a thread of its own, and adds them up in the blocks' order.
    private func count(_ blocks: [[[UInt8]]], into counts: inout WordCounts, _ pool: ThreadPool) {
        var parts = [WordCounts](repeating: WordCounts(), count: blocks.count)
        parts.withUnsafeMutableBufferPointer { parts in
            // Each part writes its own element.
            nonisolated(unsafe) let parts = parts
            pool.run(parts: blocks.count) { part, _ in
                var own = WordCounts()
                for run in blocks[part] { run.withUnsafeBufferPointer { count($0, into: &own) } }
                parts[part] = own
            }
        }
        for part in parts { counts.add(part) }
    }

    private func count(_ text: UnsafeBufferPointer<UInt8>, into counts: inout WordCounts) {
        guard let start = text.baseAddress else { return }
        let classes = ScalarClasses.shared.view
        let splitter = Splitter.words(pattern.words)
        var place = 0
        while place < text.count {
            let end = splitter.pieceEnd(start, place, text.count, classes)
            counts.add(start + place, end - place)
            place = end
        }
    }

    private func tokenizer(_ words: WordCounts) throws(TokenizerError) -> Tokenizer {
        guard words.count > 0 else { throw .training(reason: "there is no text; name files that are not empty") }
        var tokens = TokenTable(capacity: vocabularySize)
        for token in specialTokens { _ = tokens.insert(token.utf8, id: tokens.idEnd) }
        for scalar in ByteAlphabet.scalars.sorted() {
            var text: [UInt8] = []
            UTF8Scalar.append(scalar, to: &text)
            _ = tokens.insert(text, id: tokens.idEnd)
        }
        var learner = MergeLearner(words, tokens: tokens)
        let rules = learner.learn(size: vocabularySize, least: leastCount)

        var parts = TokenizerParts(path: "a trained tokenizer")
        parts.tokens = learner.tokens
        parts.rules = rules
        parts.addedTokens = specialTokens.enumerated().map { AddedToken($0.element, id: Int32($0.offset)) }
        parts.preTokenizer = preTokenizer
        parts.postProcessor = BPETrainer.byteLevel(usesPattern: true)
        parts.decoder = BPETrainer.byteLevel(usesPattern: true)
        return try Tokenizer(parts)
    }

    private var preTokenizer: JSONTree {
        if pattern == .gpt2 { return BPETrainer.byteLevel(usesPattern: true) }
        return .fields([
            "type": .string("Sequence"),
            "pretokenizers": .array([
                .fields([
                    "type": .string("Split"),
                    "pattern": .fields(["Regex": .string(pattern.words.expression)]),
                    "behavior": .string("Isolated"), "invert": .truth(false),
                ]), BPETrainer.byteLevel(usesPattern: false),
            ]),
        ])
    }

    private static func byteLevel(usesPattern: Bool) -> JSONTree {
        .fields([
            "type": .string("ByteLevel"), "add_prefix_space": .truth(false), "trim_offsets": .truth(true),
            "use_regex": .truth(usesPattern),
        ])
    }
}
