import ApusTensor
import Glibc

/// One shard, opened for reading.
///
/// Its size and header are checked when it is opened, and that size, time and file are still the same whenever tokens
/// are read: a file that was cut short or written over is an error. Only a cut in the moment between that check and the
/// copy ends in a bus error, as with any mapping.
final class ShardFile: Sendable {
    let path: String
    let header: ShardHeader
    private let file: FileDescriptor
    private let identity: Identity
    private let number: Int
    private let windows: MappedWindows

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

    /// Opens a shard; `number` tells it from the others that share the windows.
    ///
    /// - Throws: ``DataError/malformed(path:reason:)``; what opening a file throws.
    init(path: String, number: Int, windows: MappedWindows) throws {
        // O_NONBLOCK: opening a pipe must not wait for a writer, it is refused by its kind below.
        file = try FileDescriptor(path: path, flags: O_RDONLY | O_NONBLOCK, operation: "opening")
        _ = try file.regularFileSize()
        let identity = Identity(try file.status())
        self.identity = identity
        var start = [UInt8](repeating: 0, count: ShardHeader.byteCount)
        let descriptor = file.raw
        let count = start.withUnsafeMutableBytes { bytes in
            retrying { Glibc.pread(descriptor, bytes.baseAddress, bytes.count, 0) }
        }
        if count < 0 { throw systemFailure(path, "reading") }
        header = try start[..<count].withUnsafeBytes { bytes in
            try ShardHeader(bytes, fileBytes: identity.size, path: path)
        }
        self.path = path
        self.number = number
        self.windows = windows
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

    /// Copies tokens `range` to the start of `target`.
    ///
    /// - Throws: ``DataError``
    func read(_ range: Range<Int>, into target: UnsafeMutableBufferPointer<Int32>) throws {
        precondition(range.lowerBound >= 0 && range.upperBound <= header.tokens && range.count <= target.count)
        try checkUnchanged()
        var done = 0
        while done < range.count {
            let offset = ShardHeader.byteCount + (range.lowerBound + done) * header.tokenBytes
            let rest = UnsafeMutableBufferPointer(rebasing: target[done..<range.count])
            let copied = try window(offset).withBytes(from: offset % MappedWindows.windowBytes) { bytes in
                header.tokenBytes == 2
                    ? copy(bytes, as: UInt16.self, into: rest) : copy(bytes, as: UInt32.self, into: rest)
            }
            let limit = UInt32(header.vocabularySize)
            guard rest[..<copied].allSatisfy({ UInt32(bitPattern: $0) < limit }) else {
                throw DataError.malformed(path: path, reason: "it holds an id that its vocabulary does not have")
            }
            done += copied
        }
    }

    private func copy<Token: FixedWidthInteger>(
        _ bytes: UnsafeRawBufferPointer, as type: Token.Type, into target: UnsafeMutableBufferPointer<Int32>
    ) -> Int {
        let count = min(target.count, bytes.count / MemoryLayout<Token>.size)
        let source = bytes.prefix(count * MemoryLayout<Token>.size).withMemoryRebound(to: Token.self) { $0 }
        for index in 0..<count { target[index] = Int32(truncatingIfNeeded: Token(littleEndian: source[index])) }
        return count
    }

    /// The place after the last token of a document.
    ///
    /// - Throws: ``DataError``
    func end(ofDocument document: Int) throws -> Int {
        let offset = header.tableOffset + document * 8
        let end = try window(offset).withBytes(from: offset % MappedWindows.windowBytes) { bytes in
            UInt64(littleEndian: bytes.load(as: UInt64.self))
        }
        guard end > 0, end <= UInt64(header.tokens) else {
            throw DataError.malformed(path: path, reason: "document \(document) ends at \(end) of \(header.tokens)")
        }
        return Int(end)
    }

    /// The first document that ends after token `place`.
    ///
    /// - Throws: ``DataError``
    func document(at place: Int) throws -> Int {
        try checkUnchanged()
        var (low, high) = (0, header.documents - 1)
        while low < high {
            let middle = (low + high) / 2
            if try end(ofDocument: middle) > place { high = middle } else { low = middle + 1 }
        }
        return low
    }

    private func window(_ offset: Int) throws -> MappedWindows.Window {
        try windows.window(holding: offset, of: file, numbered: number, fileBytes: identity.size)
    }
}
