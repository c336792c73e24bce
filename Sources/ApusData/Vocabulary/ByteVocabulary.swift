/// One id for each byte, and one for the end of a document: needs no training and loses nothing.
public struct ByteVocabulary: Vocabulary {
    /// A vocabulary of 257 ids.
    public init() {}

    /// 256 bytes and the end of a document.
    public var size: Int { 257 }
    /// 256.
    public var endOfDocument: Int32? { 256 }

    /// Each byte's value.
    public func encode(_ bytes: [UInt8]) -> [Int32] { bytes.map(Int32.init) }

    /// The byte itself; none for ids of 256 and above.
    public func bytes(of id: Int32) -> [UInt8] { UInt8(exactly: id).map { [$0] } ?? [] }
}
