import Glibc

/// Size and checksum of a file.
public struct FileDigest: Sendable, Hashable {
    /// Bytes.
    public let count: Int
    /// XXH64 with seed 0.
    public let checksum: UInt64

    /// A size in bytes and an XXH64 checksum.
    public init(count: Int, checksum: UInt64) {
        self.count = count
        self.checksum = checksum
    }

    /// Reads a file through.
    ///
    /// It is read, not mapped, so that a storage fault is an error and not a signal.
    ///
    /// - Throws: `notFound`, `wrongKind`, `permissionDenied` or `system`.
    public init(ofFile path: String) throws(FileError) {
        let file = try FileDescriptor(path: path, flags: O_RDONLY | O_NONBLOCK, operation: "opening")
        _ = try file.regularFileSize()
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { buffer.deallocate() }
        var hash = XXH64()
        var total = 0
        while true {
            let count = try file.readSome(into: buffer)
            if count == 0 { break }
            hash.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            total += count
        }
        self.init(count: total, checksum: hash.value)
    }
}
