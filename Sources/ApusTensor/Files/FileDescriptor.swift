package import Glibc

/// Owns an open file or folder and closes it when its life ends.
package struct FileDescriptor: ~Copyable, Sendable {
    /// The number the system knows it by.
    package let raw: Int32
    /// The name it was opened under.
    package let path: String

    /// Opens `path`; `operation` is what messages call it.
    ///
    /// `O_NONBLOCK` among the flags opens a pipe without waiting for its other end, so that it can be refused.
    package init(path: String, flags: Int32, mode: mode_t = 0o666, operation: String) throws(FileError) {
        // A C string ends at its first zero byte: such a path would lead somewhere else than its name says.
        guard !path.utf8.contains(0) else { throw .notFound(path: path) }
        let opened = retrying { Int(open(path, flags | O_CLOEXEC, mode)) }
        if opened == -1 { throw systemFailure(path, operation, folder: splitPath(path).folder) }
        raw = Int32(opened)
        self.path = path
    }

    // A process that another thread is just starting holds a copy of every descriptor until it becomes its program: a
    // lock that only ended with the last copy could outlive this one.
    deinit {
        _ = retrying { Int(flock(raw, LOCK_UN)) }
        close(raw)
    }

    /// Status of what is open.
    package func status() throws(FileError) -> stat {
        var status = stat()
        if fstat(raw, &status) == -1 { throw systemFailure(path, "reading its size") }
        return status
    }

    /// Fails unless a regular file is open; returns its size in bytes.
    package func regularFileSize() throws(FileError) -> Int {
        let status = try status()
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .wrongKind(path: path, found: kindName(status.st_mode), wanted: "a file")
        }
        return Int(status.st_size)
    }

    /// Writes all of `bytes` at the current position.
    package func writeAll(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
        var rest = bytes
        while !rest.isEmpty {
            let written = retrying { write(raw, rest.baseAddress, rest.count) }
            if written == -1 { throw systemFailure(path, "writing", folder: splitPath(path).folder) }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    /// Reads up to `buffer.count` bytes; 0 means the end of the file.
    package func readSome(into buffer: UnsafeMutableRawBufferPointer) throws(FileError) -> Int {
        let count = retrying { read(raw, buffer.baseAddress, buffer.count) }
        if count == -1 { throw systemFailure(path, "reading") }
        return count
    }

    /// Reads from byte `offset` on until `buffer` is full or the file ends; returns the bytes read.
    ///
    /// The current position is neither used nor moved, so that threads may share the descriptor.
    package func readFully(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileError) -> Int {
        var done = 0
        while done < buffer.count {
            let count = retrying {
                pread(raw, buffer.baseAddress.map { $0 + done }, buffer.count - done, off_t(offset + done))
            }
            if count == -1 { throw systemFailure(path, "reading") }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// Waits until the storage holds what was written.
    package func sync() throws(FileError) {
        if retrying({ Int(fsync(raw)) }) == -1 {
            throw systemFailure(path, "syncing to storage", folder: splitPath(path).folder)
        }
    }

    /// Outcome of asking for a lock.
    package enum Lock {
        /// This descriptor holds it now.
        case taken
        /// Another open file holds it.
        case heldByAnother
        /// The file system keeps no such locks.
        case unavailable
    }

    /// Takes the exclusive advisory lock without waiting; it ends with this descriptor or the process.
    package func lock() -> Lock {
        if retrying({ Int(flock(raw, LOCK_EX | LOCK_NB)) }) == 0 { return .taken }
        return errno == EWOULDBLOCK ? .heldByAnother : .unavailable
    }

    /// Whether `path` still leads to what is open here.
    package func isStillNamed() throws(FileError) -> Bool {
        let open = try status()
        var named = stat()
        return lstat(path, &named) == 0 && named.st_ino == open.st_ino && named.st_dev == open.st_dev
    }

    /// Opens a folder, syncs its list of names, closes it.
    package static func syncFolder(_ path: String) throws(FileError) {
        try FileDescriptor(path: path, flags: O_RDONLY | O_DIRECTORY, operation: "opening folder").sync()
    }
}
