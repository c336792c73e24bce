import Glibc

/// Bytes of a tokenizer's file.
enum TokenizerFile {
    /// Larger than any tokenizer; protects against naming a model's weights by mistake.
    static let mostBytes = 1 << 29

    /// The whole file.
    static func read(_ path: String) throws(TokenizerError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { throw .unreadable(path: path, reason: failure()) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .unreadable(path: path, reason: failure()) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .unreadable(path: path, reason: "it is no file; name the tokenizer.json itself")
        }
        let size = Int(status.st_size)
        guard size <= mostBytes else {
            throw .unreadable(path: path, reason: "its \(size) bytes are more than the \(mostBytes) of any tokenizer")
        }
        var filled = 0
        var failed: String?
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            while filled < size {
                let part = Glibc.read(descriptor, buffer.baseAddress?.advanced(by: filled), size - filled)
                if part < 0, errno == EINTR { continue }
                if part < 0 { failed = failure() }
                if part <= 0 { break }
                filled += part
            }
            count = filled
        }
        if let failed { throw .unreadable(path: path, reason: failed) }
        return bytes
    }

    /// Writes the whole file under another name and gives it its own at the end: a reader sees the old file or the new.
    static func write(_ bytes: [UInt8], to path: String) throws(TokenizerError) {
        let partial = "\(path).partial-\(getpid())"
        let descriptor = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw .unwritable(path: path, reason: failure()) }
        var written = 0
        var failed: String?
        while written < bytes.count, failed == nil {
            let part = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress?.advanced(by: written), $0.count - written)
            }
            if part < 0, errno != EINTR { failed = failure() }
            written += max(part, 0)
        }
        if failed == nil, fsync(descriptor) != 0 { failed = failure() }
        if close(descriptor) != 0, failed == nil { failed = failure() }
        if failed == nil, rename(partial, path) != 0 { failed = failure() }
        if let failed {
            unlink(partial)
            throw .unwritable(path: path, reason: failed)
        }
    }

    private static func failure() -> String { String(cString: strerror(errno)) }
}
