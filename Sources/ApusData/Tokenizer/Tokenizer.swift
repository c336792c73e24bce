import Synchronization

/// Byte-pair encoding as `tokenizer.json` describes it: text to ids, equal to those of the `tokenizers` library, and back.
///
/// Text is bytes. Bytes that are not UTF-8 keep their values where the vocabulary has all bytes, and belong to no
/// letter, number or space. What a file asks for and Apus does not have is refused by name when it is read; truncation
/// and padding are kept and not carried out.
public final class Tokenizer: Vocabulary {
    let parts: TokenizerParts
    let model: BPEModel
    let normalizers: [Normalizer]
    let preTokenizer: PreTokenizer
    let template: (prefix: [Int32], suffix: [Int32])
    let decoder: TokenDecoder
    /// Tokens that are found in text as it comes, and those found in normalised text.
    let finders: (raw: TokenFinder, normalized: TokenFinder)
    /// Where text without spaces may be cut before this mark; nil if a token reaches over it.
    let safeMark: [UInt8]?
    let specialIDs: Set<Int32>
    let addedTexts: [Int32: [UInt8]]
    /// Workspaces not in use.
    let workspaces = Mutex<[EncodingWorkspace]>([])

    /// One more than the highest id.
    public let size: Int
    /// The id that stands between documents; `nil` if the file has no token of a known name for it.
    public let endOfDocument: Int32?

    /// Names by which published vocabularies call the end of a document, the most telling first.
    static let endNames = [
        "<|endoftext|>", "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>", "<|eos|>", "[EOS]",
    ]

    /// Reads a `tokenizer.json`.
    ///
    /// - Parameters:
    ///   - path: the file.
    ///   - endOfDocument: the text of the token that stands between documents, where the file has none of a known name.
    /// - Throws: ``TokenizerError``.
    public convenience init(file path: String, endOfDocument: String? = nil) throws(TokenizerError) {
        let parts = try TokenizerFile.read(path) { bytes throws(TokenizerError) in
            try TokenizerReader.read(bytes, path: path)
        }
        try self.init(parts, endOfDocument: endOfDocument)
    }

    /// Reads the text of a `tokenizer.json`.
    ///
    /// - Parameter path: where the text is from, for messages.
    /// - Throws: ``TokenizerError``.
    public convenience init(
        json: [UInt8], path: String = "tokenizer.json", endOfDocument: String? = nil
    ) throws(TokenizerError) {
        let parts = try json.withUnsafeBufferPointer { bytes throws(TokenizerError) in
            try TokenizerReader.read(UnsafeRawBufferPointer(bytes), path: path)
        }
        try self.init(parts, endOfDocument: endOfDocument)
    }

    init(_ parts: TokenizerParts, endOfDocument: String? = nil) throws(TokenizerError) {
        self.parts = parts
        let normalizers = try parts.normalizers()
        self.normalizers = normalizers
        preTokenizer = try parts.preTokenizerValue()
        template = try parts.template()
        decoder = try parts.decoderValue()
        model = BPEModel(
            tokens: parts.tokens, rules: parts.rules, isByteLevel: preTokenizer.isByteLevel, unknown: parts.unknown,
            ignoresMerges: parts.ignoresMerges)
        if parts.unknown.usesBytes, model.isByteLevel, !model.hasAllBytes {
            throw parts.unsupported(
                "model.byte_fallback", "true for a byte-level vocabulary that lacks bytes",
                works: "all 256 bytes as tokens")
        }
        let mark = preTokenizer.metaspace?.mark ?? PreTokenizer.Metaspace().mark
        var markText: [UInt8] = []
        UTF8Scalar.append(mark, to: &markText)
        safeMark = model.neverCrosses(mark) ? markText : nil

        let raw = parts.addedTokens.filter { !$0.isNormalized }
        let normalized = parts.addedTokens.filter(\.isNormalized)
        finders = (
            TokenFinder(raw, texts: raw.map { Array($0.content.utf8) }),
            TokenFinder(normalized, texts: normalized.map { normalizers.normalized(Array($0.content.utf8)) })
        )
        specialIDs = Set(parts.addedTokens.filter(\.isSpecial).map(\.id))
        var addedTexts: [Int32: [UInt8]] = [:]
        for token in parts.addedTokens {
            let text = Array(token.content.utf8)
            addedTexts[token.id] = token.isNormalized ? normalizers.normalized(text) : text
        }
        self.addedTexts = addedTexts
        size = max(parts.tokens.idEnd, (parts.addedTokens.map { Int($0.id) }.max() ?? -1) + 1)
        self.endOfDocument = try Tokenizer.end(parts, named: endOfDocument)
    }

    private static func end(_ parts: TokenizerParts, named name: String?) throws(TokenizerError) -> Int32? {
        func id(_ name: String) -> Int32? {
            parts.addedTokens.first { $0.content == name }?.id ?? parts.tokens.id(of: name).map(Int32.init)
        }
        guard let name else { return endNames.lazy.compactMap(id).first }
        guard let id = id(name) else { throw parts.inconsistent("there is no token '\(name)' to end documents with") }
        return id
    }

    /// How many tokens there are, added ones included; ids may have gaps, so ``size`` may be larger.
    public var tokenCount: Int {
        parts.tokens.count + parts.addedTokens.filter { !parts.tokens.contains(Int($0.id)) }.count
    }

    /// Added tokens, in the order of the file.
    public var addedTokens: [AddedToken] { parts.addedTokens }

    /// The id of a token by its text as the file writes it.
    public func id(of token: String) -> Int32? {
        parts.addedTokens.first { $0.content == token }?.id ?? parts.tokens.id(of: token).map(Int32.init)
    }

    /// The text of the `tokenizer.json` that gives this tokenizer.
    public var json: [UInt8] { parts.json }

    /// Writes a `tokenizer.json`, whole or not at all.
    ///
    /// - Throws: ``TokenizerError/file(_:)``.
    public func write(to path: String) throws(TokenizerError) { try TokenizerFile.write(json, to: path) }
}

extension [Normalizer] {
    /// The text after all of them.
    fileprivate func normalized(_ text: [UInt8]) -> [UInt8] {
        text.withUnsafeBufferPointer { buffer in
            buffer.baseAddress.flatMap { normalized($0, 0..<buffer.count) } ?? text
        }
    }
}
