import ApusTensor
import Glibc

/// Writes the documents of one part into shards, as they come, in constant memory.
///
/// A shard ends with the document that fills it. Files appear below a folder that is published as a whole, so they are
/// written under their own names.
final class ShardWriter {
    /// Most documents of one shard: their ends are kept in memory until it is finished, 8 MiB of them.
    private static let mostDocuments = 1 << 20
    private static let bufferBytes = 1 << 20

    private let folder: String
    private let part: CorpusPart
    private let vocabulary: VocabularyIdentity
    private let tokensPerShard: Int
    private let tokenBytes: Int
    private var file: FileDescriptor?
    private var name = ""
    private var buffer: [UInt8] = []
    private var tokens = 0
    private var ends: [UInt64] = []
    /// Shards that are finished.
    private(set) var shards: [ShardManifest.Shard] = []

    init(folder: String, part: CorpusPart, vocabulary: VocabularyIdentity, tokensPerShard: Int) {
        precondition(tokensPerShard > 0)
        self.folder = folder
        self.part = part
        self.vocabulary = vocabulary
        self.tokensPerShard = tokensPerShard
        tokenBytes = ShardHeader.tokenBytes(vocabularySize: vocabulary.size)
        buffer.reserveCapacity(Self.bufferBytes + 4)
    }

    /// Appends tokens of the document that is being written.
    ///
    /// - Throws: what writing a file throws.
    func append(_ ids: ArraySlice<Int32>) throws {
        if ids.isEmpty { return }
        if tokens == 0 { try begin() }
        var rest = ids
        while !rest.isEmpty {
            let room = max(1, (Self.bufferBytes - buffer.count) / tokenBytes)
            pack(rest.prefix(room))
            rest = rest.dropFirst(room)
            if buffer.count >= Self.bufferBytes { try flush() }
        }
        tokens += ids.count
    }

    /// Ends a document of at least one token.
    ///
    /// - Throws: what writing a file throws.
    func endDocument() throws {
        precondition(tokens > Int(ends.last ?? 0), "a document has at least one token")
        ends.append(UInt64(tokens))
        if tokens >= tokensPerShard || ends.count >= Self.mostDocuments { try finish() }
    }

    /// Ends the last shard.
    ///
    /// - Throws: what writing a file throws.
    func finish() throws {
        guard tokens > 0, file != nil else { return }
        precondition(Int(ends.last ?? 0) == tokens, "a document was not ended")
        let header = ShardHeader(
            tokens: tokens, documents: ends.count, tokenBytes: tokenBytes, vocabularySize: vocabulary.size,
            endOfDocument: vocabulary.endOfDocument)
        let padding = header.tableOffset - ShardHeader.byteCount - tokens * tokenBytes
        buffer.append(contentsOf: repeatElement(0, count: padding))
        for end in ends {
            withUnsafeBytes(of: end.littleEndian) { buffer.append(contentsOf: $0) }
            if buffer.count >= Self.bufferBytes { try flush() }
        }
        try flush()
        try file?.write(header.bytes, at: 0)
        file = nil
        let digest = try FileDigest(ofFile: "\(folder)/\(name)")
        precondition(digest.count == header.fileBytes)
        shards.append(
            ShardManifest.Shard(file: name, part: part, documents: ends.count, tokens: tokens, digest: digest))
        tokens = 0
        ends.removeAll(keepingCapacity: true)
    }

    private func begin() throws {
        let number = "\(shards.count)"
        name = "\(part.rawValue)-" + String(repeating: "0", count: max(0, 5 - number.count)) + number + ".tokens"
        file = try FileDescriptor(
            path: "\(folder)/\(name)", flags: O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, operation: "creating")
        // The header's place is kept: its counts are known at the end.
        buffer = [UInt8](repeating: 0, count: ShardHeader.byteCount)
        buffer.reserveCapacity(Self.bufferBytes + 4)
    }

    private func pack(_ ids: ArraySlice<Int32>) {
        if tokenBytes == 2 { pack(ids, as: UInt16.self) } else { pack(ids, as: UInt32.self) }
    }

    private func pack<Token: FixedWidthInteger>(_ ids: ArraySlice<Int32>, as type: Token.Type) {
        let start = buffer.count
        buffer.append(contentsOf: repeatElement(0, count: ids.count * MemoryLayout<Token>.size))
        buffer.withUnsafeMutableBytes { bytes in
            for (place, id) in ids.enumerated() {
                bytes.storeBytes(
                    of: Token(truncatingIfNeeded: id).littleEndian,
                    toByteOffset: start + place * MemoryLayout<Token>.size, as: Token.self)
            }
        }
    }

    private func flush() throws {
        try buffer.withUnsafeBytes { try file?.writeAll($0) }
        buffer.removeAll(keepingCapacity: true)
    }
}

extension FileDescriptor {
    /// Writes all of `bytes` from byte `offset` of the file on.
    fileprivate func write(_ bytes: [UInt8], at offset: Int) throws {
        guard lseek(raw, off_t(offset), SEEK_SET) == off_t(offset) else { throw systemFailure(path, "writing") }
        try bytes.withUnsafeBytes { try writeAll($0) }
    }
}
