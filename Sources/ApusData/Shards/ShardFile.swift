import ApusTensor
import Glibc

/// One shard, opened for reading.
///
/// Its size and header are checked when it is opened, and after each read that size, time and file are still the same:
/// a file that was cut short or written over is an error. It is read, not mapped, because a mapping that is cut short by
/// another program ends in a bus error, whatever was checked the moment before.
final class ShardFile: Sendable {
    let path: String
    let header: ShardHeader
    private let file: FileDescriptor
    private let identity: Identity

    /// What tells that a file is still the same.
    private struct Identity: Equatable {
        let size: Int
        let device: UInt64
        let node: UInt64
        let seconds: Int
        let nanoseconds: Int

        init(_ status: stat) {
            size = Int(status.st_size)
            device = UInt64(status.st_dev)
            node = UInt64(status.st_ino)
            seconds = status.st_mtim.tv_sec
            nanoseconds = status.st_mtim.tv_nsec
        }
    }

    /// Opens a shard.
    ///
    /// - Throws: ``DataError/malformed(path:reason:)``; what opening a file throws.
    init(path: String) throws {
        // O_NONBLOCK: opening a pipe must not wait for a writer, it is refused by its kind below.
        file = try FileDescriptor(path: path, flags: O_RDONLY | O_NONBLOCK, operation: "opening")
        _ = try file.regularFileSize()
        let identity = Identity(try file.status())
        self.identity = identity
        self.path = path
        let start = UnsafeMutableRawBufferPointer.allocate(byteCount: ShardHeader.byteCount, alignment: 8)
        defer { start.deallocate() }
        let count = try file.readFully(into: start, at: 0)
        header = try ShardHeader(
            UnsafeRawBufferPointer(rebasing: start[..<count]), fileBytes: identity.size, path: path)
        guard try end(ofDocument: header.documents - 1) == header.tokens else {
            throw DataError.malformed(path: path, reason: "its last document does not end with its tokens")
        }
    }

    /// - Throws: ``DataError/fileChanged(path:what:)`` unless the file is as it was when it was opened.
    func checkUnchanged() throws {
        let now = Identity(try file.status())
        guard now != identity else { return }
        throw DataError.fileChanged(
            path: path,
            what: now.size == identity.size
                ? "was written over while it was being read"
                : "had \(identity.size) bytes when it was opened and has \(now.size) now")
    }

    /// Bytes read at once from the middle of a shard: of the fastest sizes the smallest.
    private static let pieceBytes = 64 << 10

    /// Copies tokens `range` to the start of `target`.
    ///
    /// - Throws: ``DataError``
    func read(_ range: Range<Int>, into target: UnsafeMutableBufferPointer<Int32>) throws {
        precondition(range.lowerBound >= 0 && range.upperBound <= header.tokens && range.count <= target.count)
        let size = header.tokenBytes
        let pieceBytes = min(range.count * size, Self.pieceBytes)
        try withUnsafeTemporaryAllocation(byteCount: pieceBytes, alignment: 8) { piece in
            for first in stride(from: 0, to: range.count, by: Self.pieceBytes / size) {
                let count = min(range.count - first, Self.pieceBytes / size)
                let bytes = UnsafeMutableRawBufferPointer(rebasing: piece[..<(count * size)])
                try fill(bytes, at: ShardHeader.byteCount + (range.lowerBound + first) * size)
                let part = UnsafeMutableBufferPointer(rebasing: target[first..<first + count])
                let isSound =
                    size == 2 ? widen(bytes, from: UInt16.self, to: part) : widen(bytes, from: UInt32.self, to: part)
                guard isSound else {
                    // Of a file that was written over this is what matters.
                    try checkUnchanged()
                    throw DataError.malformed(path: path, reason: "it holds an id that its vocabulary does not have")
                }
            }
        }
        try checkUnchanged()
    }

    /// - Returns: whether all of them are ids of the vocabulary.
    private func widen<Token: FixedWidthInteger & UnsignedInteger>(
        _ bytes: UnsafeMutableRawBufferPointer, from type: Token.Type, to target: UnsafeMutableBufferPointer<Int32>
    ) -> Bool {
        bytes.withMemoryRebound(to: Token.self) { source in
            var largest: Token = 0
            for index in 0..<target.count {
                let token = Token(littleEndian: source[index])
                largest = max(largest, token)
                target[index] = Int32(truncatingIfNeeded: token)
            }
            return Int(largest) < header.vocabularySize
        }
    }

    /// The place after the last token of a document.
    ///
    /// - Throws: ``DataError``
    func end(ofDocument document: Int) throws -> Int { try ends(ofDocuments: document..<document + 1)[0] }

    /// The places after the last tokens of documents.
    ///
    /// - Throws: ``DataError``
    func ends(ofDocuments documents: Range<Int>) throws -> [Int] {
        precondition(documents.lowerBound >= 0 && documents.upperBound <= header.documents)
        return try [Int](unsafeUninitializedCapacity: documents.count) { ends, filled in
            let bytes = UnsafeMutableRawBufferPointer(start: ends.baseAddress, count: documents.count * 8)
            try fill(bytes, at: header.tableOffset + documents.lowerBound * 8)
            for index in 0..<documents.count {
                let end = UInt64(littleEndian: bytes.load(fromByteOffset: index * 8, as: UInt64.self))
                guard end > 0, end <= UInt64(header.tokens) else {
                    try checkUnchanged()
                    throw DataError.malformed(
                        path: path,
                        reason: "document \(documents.lowerBound + index) ends at \(end) of \(header.tokens)")
                }
                ends[index] = Int(end)
            }
            filled = documents.count
        }
    }

    /// The first document that ends after token `place`.
    ///
    /// - Throws: ``DataError``
    func document(at place: Int) throws -> Int {
        var (low, high) = (0, header.documents - 1)
        while low < high {
            let middle = (low + high) / 2
            if try end(ofDocument: middle) > place { high = middle } else { low = middle + 1 }
        }
        try checkUnchanged()
        return low
    }

    /// Reads exactly `buffer.count` bytes from `offset` of the file.
    private func fill(_ buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws {
        guard try file.readFully(into: buffer, at: offset) < buffer.count else { return }
        try checkUnchanged()
        throw DataError.fileChanged(path: path, what: "ends before byte \(offset + buffer.count), which it had")
    }
}
