import Glibc

/// A file's whole content, read into memory.
///
/// For small files that somebody may rewrite at any time: what was read stays as it is, and one cut short meanwhile is
/// a shorter text, where a mapping would end in a bus error.
public struct FileContents: Sendable, Hashable {
    /// The name it was opened under.
    public let path: String
    /// What it held.
    public let bytes: [UInt8]

    /// Bytes that none of the files of a model or corpus, its tensors and tokens aside, comes near.
    public static let usualLimit = 256 << 20

    /// - Parameter limit: a file of more bytes is refused before it is read.
    /// - Throws: `notFound`, `wrongKind`, `permissionDenied`, `system`, or `malformed` above the limit.
    public init(path: String, atMost limit: Int = FileContents.usualLimit) throws(FileError) {
        // O_NONBLOCK: opening a pipe must not wait for a writer, it is refused by its kind below.
        let file = try FileDescriptor(path: path, flags: O_RDONLY | O_NONBLOCK, operation: "opening")
        let size = try file.regularFileSize()
        var bytes: [UInt8] = []
        // One byte more, so that reading it shows the end.
        var buffer = [UInt8](repeating: 0, count: min(max(size, 0), 1 << 20) + 1)
        while bytes.count <= limit, size <= limit {
            let count = try buffer.withUnsafeMutableBufferPointer { buffer throws(FileError) in
                try file.readSome(into: UnsafeMutableRawBufferPointer(buffer))
            }
            if count == 0 {
                self.path = path
                self.bytes = bytes
                return
            }
            if bytes.isEmpty { bytes.reserveCapacity(size) }
            bytes += buffer[..<count]
        }
        throw .malformed(path: path, offset: nil, reason: "has more than \(limit) bytes, which no such file has")
    }

    /// Lends the content.
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try bytes.withUnsafeBufferPointer { bytes throws(Failure) in try body(UnsafeRawBufferPointer(bytes)) }
    }

    /// The content as text; what is not UTF-8 becomes replacement characters.
    public var text: String { String(decoding: bytes, as: UTF8.self) }
}
