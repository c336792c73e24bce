/// Turns bytes into token ids and back: what data preparation and generation know of a tokenizer.
///
/// Text is UTF-8 on the outside, bytes inside: a token may hold part of a character, and a corpus may hold bytes that
/// are no text. Decoding what was encoded gives the same bytes, unless the vocabulary normalises text.
public protocol Vocabulary: Sendable {
    /// Ids are below this.
    var size: Int { get }
    /// The id that stands between documents and ends a generated one; `nil` if there is none.
    var endOfDocument: Int32? { get }
    /// The ids of `bytes`. Special ids are never among them, whatever the bytes say.
    func encode(_ bytes: [UInt8]) -> [Int32]
    /// The bytes that `id` stands for; none for special ids and for ids that the vocabulary does not have, which a model
    /// with a larger table may still produce.
    func bytes(of id: Int32) -> [UInt8]
    /// The bytes that `id` stands for as the first of a text: some vocabularies leave out a space there.
    func bytes(ofFirst id: Int32) -> [UInt8]
}

extension Vocabulary {
    /// The ids of a text's UTF-8 bytes.
    public func encode(_ text: String) -> [Int32] { encode(Array(text.utf8)) }

    /// ``bytes(of:)``: a text begins as it goes on.
    public func bytes(ofFirst id: Int32) -> [UInt8] { bytes(of: id) }

    /// The bytes that `ids` stand for, one after another.
    public func decode(_ ids: some Sequence<Int32>) -> [UInt8] {
        var decoded: [UInt8] = []
        var isFirst = true
        for id in ids {
            // Ids that stand for nothing, such as one for the beginning, come before the first.
            let inside = bytes(of: id)
            decoded += isFirst ? bytes(ofFirst: id) : inside
            isFirst = isFirst && inside.isEmpty
        }
        return decoded
    }

    /// The text that `ids` stand for; bytes that are not UTF-8 become U+FFFD.
    public func text(of ids: some Sequence<Int32>) -> String { String(decoding: decode(ids), as: UTF8.self) }
}
