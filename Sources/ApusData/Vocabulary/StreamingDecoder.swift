/// Text from bytes or ids that arrive in pieces, never half a character.
///
/// The pieces joined are what decoding all bytes at once would give: bytes that cannot belong to a character become
/// U+FFFD as soon as that is certain, and the beginning of a character waits for its rest.
public struct StreamingDecoder: Sendable {
    /// The beginning of a character, at most three bytes.
    private var pending: [UInt8] = []
    /// Whether the next id is the first of a text.
    private var isAtStart: Bool

    /// A decoder that has seen nothing.
    ///
    /// - Parameter isContinuing: ids go on with a text that has begun, as generated ones do after a prompt.
    public init(isContinuing: Bool = false) { isAtStart = !isContinuing }

    /// The text that the bytes of `id` complete; empty while a character is not whole.
    public mutating func append(_ id: Int32, of vocabulary: some Vocabulary) -> String {
        let inside = vocabulary.bytes(of: id)
        let bytes = isAtStart ? vocabulary.bytes(ofFirst: id) : inside
        // Ids that stand for nothing, such as one for the beginning, come before the first.
        isAtStart = isAtStart && inside.isEmpty
        return append(bytes)
    }

    /// The text that `bytes` complete; empty while a character is not whole.
    public mutating func append(_ bytes: some Sequence<UInt8>) -> String {
        pending.append(contentsOf: bytes)
        let kept = UTF8Prefix.incompleteSuffix(of: pending)
        let text = String(decoding: pending.dropLast(kept), as: UTF8.self)
        pending.removeFirst(pending.count - kept)
        return text
    }

    /// What is left when no more bytes come: U+FFFD for a character that stayed incomplete, else nothing.
    ///
    /// The decoder can be used again, for a text from its beginning.
    public mutating func finish() -> String {
        defer {
            pending.removeAll()
            isAtStart = true
        }
        return String(decoding: pending, as: UTF8.self)
    }
}

/// Which bytes may begin a character (Unicode 15, table 3-7, "Well-formed UTF-8 byte sequences").
private enum UTF8Prefix {
    /// How many bytes at the end of `bytes` begin a character and need more bytes, at most 3.
    static func incompleteSuffix(of bytes: [UInt8]) -> Int {
        for count in stride(from: min(3, bytes.count), to: 0, by: -1)
        where isIncomplete(bytes[(bytes.count - count)...]) { return count }
        return 0
    }

    /// Whether `bytes` are the beginning, and not the whole, of a character.
    private static func isIncomplete(_ bytes: ArraySlice<UInt8>) -> Bool {
        guard let lead = bytes.first, let length = length(of: lead), bytes.count < length else { return false }
        for (offset, byte) in bytes.dropFirst().enumerated() {
            guard (offset == 0 ? second(after: lead) : 0x80...0xbf).contains(byte) else { return false }
        }
        return true
    }

    /// Bytes of the character that begins with `lead`, of more than one.
    private static func length(of lead: UInt8) -> Int? {
        switch lead {
        case 0xc2...0xdf: 2
        case 0xe0...0xef: 3
        case 0xf0...0xf4: 4
        default: nil
        }
    }

    /// Second bytes that exclude overlong forms, surrogates and values above U+10FFFF.
    private static func second(after lead: UInt8) -> ClosedRange<UInt8> {
        switch lead {
        case 0xe0: 0xa0...0xbf
        case 0xed: 0x80...0x9f
        case 0xf0: 0x90...0xbf
        case 0xf4: 0x80...0x8f
        default: 0x80...0xbf
        }
    }
}
