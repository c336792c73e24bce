import Glibc

/// A file being written that gets its name only when it is whole and on storage.
///
/// Bytes go to `<path>.tmp-<pid>` beside the target. `publish` syncs, renames and syncs the folder; until then an
/// existing file of the name stays as it is. A value that is dropped unpublished removes its temporary.
public struct AtomicFile: ~Copyable {
    /// The name the file will have.
    public let path: String
    /// Bytes written so far.
    public private(set) var count = 0
    private let file: FileDescriptor
    private var hash = XXH64()
    private var isPublished = false

    /// Checksum and write work on pieces of this size, so that a piece is still in the cache when it is written.
    private static let pieceSize = 256 << 10

    /// - Throws: `wrongKind` if the name leads to something that is not a file, `busy`, `notFound` (no such folder),
    ///   `permissionDenied`, `noSpace` or `system`.
    public init(path: String) throws(FileError) {
        let path = withoutTrailingSlashes(path)
        let (folder, name) = splitPath(path)
        guard isPlainFileName(name) else { throw .unsafeFileName(path: path, name: name) }
        if let kind = try FolderTree.kind(path), kind != S_IFREG {
            throw .wrongKind(path: path, found: kindName(kind), wanted: "a file, or a new name")
        }
        _ = try? AbandonedFiles.remove(in: folder, prefix: "\(name).tmp-")
        file = try Self.openTemporary(for: path)
        self.path = path
    }

    private static func openTemporary(for path: String) throws(FileError) -> FileDescriptor {
        let temporary = AbandonedFiles.temporaryPath(for: path)
        // A file of this name now has a live writer, for the others have just been cleared away.
        if try FolderTree.kind(temporary) != nil { throw .busy(path: path, temporary: temporary) }
        let file = try FileDescriptor(
            path: temporary, flags: O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, operation: "creating")
        // Somebody who clears up may have seen the file in the moment before it was locked.
        guard file.lock() != .heldByAnother, try file.isStillNamed() else {
            throw .busy(path: path, temporary: temporary)
        }
        return file
    }

    deinit {
        if !isPublished { unlink(file.path) }
    }

    /// Appends bytes.
    ///
    /// - Throws: `noSpace` or `system`.
    public mutating func write(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
        for start in stride(from: 0, to: bytes.count, by: Self.pieceSize) {
            let end = min(start + Self.pieceSize, bytes.count)
            let piece = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            hash.update(piece)
            try file.writeAll(piece)
        }
        count += bytes.count
    }

    /// Appends bytes.
    ///
    /// - Throws: `noSpace` or `system`.
    package mutating func write(_ bytes: [UInt8]) throws(FileError) {
        try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
            try write(UnsafeRawBufferPointer(bytes))
        }
    }

    /// Appends text as UTF-8.
    ///
    /// - Throws: `noSpace` or `system`.
    public mutating func write(_ text: String) throws(FileError) {
        try write(Array(text.utf8))
    }

    /// Makes the file durable and gives it its name.
    ///
    /// - Returns: what a manifest needs to check it.
    /// - Throws: `noSpace`, `permissionDenied` or `system`. An existing file of the name is then unharmed, except that
    ///   after a failure to sync the folder the new content may already have the name.
    @discardableResult
    public consuming func publish() throws(FileError) -> FileDigest {
        try file.sync()
        try Renaming.replace(file.path, with: path)
        isPublished = true
        try FileDescriptor.syncFolder(splitPath(path).folder)
        return FileDigest(count: count, checksum: hash.value)
    }

    /// Writes a text file in one go.
    ///
    /// - Throws: as `init`, `write` and `publish`.
    @discardableResult
    public static func write(_ text: String, to path: String) throws(FileError) -> FileDigest {
        var file = try AtomicFile(path: path)
        try file.write(text)
        return try file.publish()
    }
}
