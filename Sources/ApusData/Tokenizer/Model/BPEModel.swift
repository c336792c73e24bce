/// Byte-pair encoding: a vocabulary, and merges by rank.
///
/// A word starts as its symbols, one for each byte or character, and the pair of the lowest rank is merged, the leftmost
/// first, until none is left (Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units",
/// 2016, section 3.2).
struct BPEModel: Sendable {
    /// What a character without a token becomes.
    struct Unknown: Sendable, Equatable {
        /// The token in its place; nil to leave it out.
        var token: String?
        /// Neighbours become one token.
        var isFused = false
        /// Its bytes' tokens, `<0x00>` to `<0xFF>`, come first.
        var usesBytes = false
    }

    /// Token texts; of a byte-level vocabulary, in the byte alphabet.
    let tokens: TokenTable
    /// Merges by rank.
    let rules: [MergeRule]
    /// Symbols are bytes and not characters.
    let isByteLevel: Bool
    let unknown: Unknown
    /// A word that is a token is that token, whatever the merges.
    let ignoresMerges: Bool

    let pairs: PairTable
    /// The id of each single byte as a symbol, or -1.
    let byteIDs: ReadOnlyBuffer<Int32>
    /// The id of each byte's fallback token, or -1.
    let fallbackIDs: ReadOnlyBuffer<Int32>
    /// Whole words; texts are bytes even for a byte-level vocabulary. Empty unless merges are ignored.
    let words: TokenTable
    /// The id of `unknown.token`, or -1.
    let unknownID: Int32

    init(tokens: TokenTable, rules: [MergeRule], isByteLevel: Bool, unknown: Unknown, ignoresMerges: Bool) {
        self.tokens = tokens
        self.rules = rules
        self.isByteLevel = isByteLevel
        self.unknown = unknown
        self.ignoresMerges = ignoresMerges
        pairs = PairTable(rules)
        byteIDs = ReadOnlyBuffer(
            (0..<256).map { byte in
                // Of characters, only ASCII are single bytes.
                let text = isByteLevel ? ByteAlphabet.text(of: [UInt8(byte)]) : [UInt8(byte)]
                return byte < 128 || isByteLevel ? Int32(tokens.id(of: text) ?? -1) : -1
            })
        fallbackIDs = ReadOnlyBuffer((0..<256).map { Int32(tokens.id(of: BPEModel.fallbackText(UInt8($0))) ?? -1) })
        unknownID = Int32(unknown.token.flatMap { tokens.id(of: $0) } ?? -1)
        words = ignoresMerges ? BPEModel.words(tokens, isByteLevel: isByteLevel) : TokenTable()
    }

    /// Every byte is a symbol.
    var hasAllBytes: Bool { (0..<256).allSatisfy { byteIDs.base[$0] >= 0 } }

    /// The token of a byte that is part of no token, such as `<0x0A>`.
    static func fallbackText(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "<0x" + (digits.count < 2 ? "0" : "") + digits + ">"
    }

    private static func words(_ tokens: TokenTable, isByteLevel: Bool) -> TokenTable {
        guard isByteLevel else { return tokens }
        var words = TokenTable(capacity: tokens.count)
        for id in 0..<tokens.idEnd {
            guard let text = tokens[id] else { continue }
            let bytes = text.withUnsafeBufferPointer { ByteAlphabet.bytes(of: $0) }
            // Two texts never stand for the same bytes.
            if let bytes { _ = words.insert(bytes, id: id) }
        }
        return words
    }

    /// Whether no token reaches over the place between something else and `mark`, so that text may be cut there first.
    func neverCrosses(_ mark: UInt32) -> Bool {
        var text: [UInt8] = []
        UTF8Scalar.append(mark, to: &text)
        guard !ignoresMerges, !isByteLevel, tokens.id(of: text) != nil else { return false }
        return rules.allSatisfy { rule in
            guard let left = tokens[Int(rule.left)], let right = tokens[Int(rule.right)] else { return false }
            return !right.starts(with: text) || left.suffix(text.count).elementsEqual(text)
        }
    }
}
