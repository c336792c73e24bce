import Glibc

/// A file's content, mapped read-only into memory for as long as this object lives.
///
/// Published checkpoints are replaced by renaming and never changed in place, so a mapping stays whole even when its
/// name gets new content. Cutting a mapped file short from outside ends in a bus error, as with any mapping.
public final class MappedFile: Sendable {
    /// The name it was opened under.
    public let path: String
    /// Size in bytes when the file was opened.
    public let count: Int
    // Safe to share: the pages are read-only and live until `deinit`.
    nonisolated(unsafe) private let base: UnsafeRawPointer?

    /// - Throws: `notFound`, `wrongKind`, `permissionDenied` or `system`.
    public init(path: String) throws(FileError) {
        // O_NONBLOCK: opening a pipe must not wait for a writer, it is refused by its kind below.
        let file = try FileDescriptor(path: path, flags: O_RDONLY | O_NONBLOCK, operation: "opening")
        let size = try file.regularFileSize()
        self.path = path
        self.count = size
        if size == 0 {
            base = nil
            return
        }
        // MAP_FAILED is (void *)-1, which is not imported.
        guard let address = mmap(nil, size, PROT_READ, MAP_PRIVATE, file.raw, 0), Int(bitPattern: address) != -1 else {
            throw systemFailure(path, "mapping \(size) bytes")
        }
        base = UnsafeRawPointer(address)
    }

    deinit {
        if let base { munmap(UnsafeMutableRawPointer(mutating: base), count) }
    }

    /// Lends the whole content.
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withExtendedLifetime(self) { () throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(start: base, count: count))
        }
    }

    /// Lets go of the memory that a byte range took when it was read; reading it again brings it back.
    func discard(_ range: Range<Int>) {
        guard let base else { return }
        // Whole pages alone: those at the edges hold what others may be about to read.
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let (first, end) = ((range.lowerBound + page - 1) / page * page, range.upperBound / page * page)
        guard first < end else { return }
        madvise(UnsafeMutableRawPointer(mutating: base + first), end - first, MADV_DONTNEED)
    }

    /// Content of a byte range.
    ///
    /// The value keeps the mapping alive.
    public subscript(range: Range<Int>) -> FileBytes { FileBytes(file: self, range: range) }
}

/// A range of a mapped file: a value that keeps the mapping alive and copies nothing.
///
/// The first byte may have any alignment: copy, or load unaligned.
public struct FileBytes: Sendable {
    /// The file whose mapping this value keeps alive.
    public let file: MappedFile
    /// Which bytes of the file.
    public let range: Range<Int>

    init(file: MappedFile, range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= file.count, "byte range lies outside of the file")
        self.file = file
        self.range = range
    }

    /// Number of bytes.
    public var count: Int { range.count }

    /// A part of these bytes, counted from the first of them.
    package subscript(part: Range<Int>) -> FileBytes {
        FileBytes(file: file, range: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
    }

    /// Lets go of the memory that reading took; reading again brings it back.
    package func discard() { file.discard(range) }

    /// Lends the bytes; the pointer is valid inside `body` only.
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try file.withUnsafeBytes { (all: UnsafeRawBufferPointer) throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(rebasing: all[range]))
        }
    }
}
