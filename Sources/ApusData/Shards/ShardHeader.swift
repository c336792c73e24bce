/// The first 64 bytes of a shard, and what they say about the rest. All numbers are little-endian.
///
/// | offset | bytes | holds |
/// |---|---|---|
/// | 0 | 8 | `apustokn` |
/// | 8 | 4 | version, 1 |
/// | 12 | 4 | bytes of a token, 2 or 4 |
/// | 16 | 8 | tokens |
/// | 24 | 8 | documents |
/// | 32 | 4 | size of the vocabulary: ids are below it |
/// | 36 | 4 | id of the end of a document, 0xFFFFFFFF for none |
/// | 40 | 24 | zero |
///
/// Then the tokens; zeros up to a multiple of 8; and for each document 8 bytes, the place of the token after its last.
struct ShardHeader: Equatable {
    static let byteCount = 64
    static let magic = Array("apustokn".utf8)
    static let version: UInt32 = 1
    private static let noEnd = UInt32.max

    var tokens: Int
    var documents: Int
    /// 2 or 4.
    var tokenBytes: Int
    var vocabularySize: Int
    var endOfDocument: Int32?

    /// Bytes of a token of a vocabulary.
    static func tokenBytes(vocabularySize: Int) -> Int { vocabularySize <= 1 << 16 ? 2 : 4 }

    /// Where the ends of documents begin.
    var tableOffset: Int { (Self.byteCount + tokens * tokenBytes + 7) / 8 * 8 }
    /// Bytes of the whole file.
    var fileBytes: Int { tableOffset + documents * 8 }
}

extension ShardHeader {
    /// The 64 bytes.
    var bytes: [UInt8] {
        var bytes = Self.magic
        func append(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        append(Self.version)
        append(UInt32(tokenBytes))
        append(UInt64(tokens))
        append(UInt64(documents))
        append(UInt32(vocabularySize))
        append(endOfDocument.map { UInt32($0) } ?? Self.noEnd)
        return bytes + [UInt8](repeating: 0, count: Self.byteCount - bytes.count)
    }

    /// Reads the header of a file of `fileBytes` bytes.
    ///
    /// - Throws: ``DataError/malformed(path:reason:)`` if it is none, or does not describe a file of this size.
    init(_ bytes: UnsafeRawBufferPointer, fileBytes: Int, path: String) throws(DataError) {
        func fault(_ reason: String) -> DataError { .malformed(path: path, reason: reason) }
        guard bytes.count >= Self.byteCount else { throw fault("a shard has at least \(Self.byteCount) bytes") }
        func word(_ offset: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
        func long(_ offset: Int) -> UInt64 {
            UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        guard bytes.prefix(8).elementsEqual(Self.magic) else { throw fault("it is no shard of tokens") }
        guard word(8) == Self.version else {
            throw fault("it has version \(word(8)), this program reads \(Self.version)")
        }
        guard word(12) == 2 || word(12) == 4 else { throw fault("its tokens have \(word(12)) bytes, not 2 or 4") }
        let (limit, size, end) = (UInt64(1) << 48, word(32), word(36))
        guard long(16) > 0, long(16) < limit, long(24) > 0, long(24) <= long(16) else {
            throw fault("its header counts \(long(16)) tokens in \(long(24)) documents")
        }
        guard size > 0, size <= UInt32(Int32.max), end == Self.noEnd || end < size else {
            throw fault("its header has a vocabulary of \(size) with the end of a document at \(end)")
        }
        guard bytes[40..<Self.byteCount].allSatisfy({ $0 == 0 }) else { throw fault("its header is damaged") }
        self.init(
            tokens: Int(long(16)), documents: Int(long(24)), tokenBytes: Int(word(12)), vocabularySize: Int(size),
            endOfDocument: end == Self.noEnd ? nil : Int32(end))
        guard self.fileBytes == fileBytes else {
            throw fault("its header describes \(self.fileBytes) bytes and it has \(fileBytes)")
        }
    }
}
