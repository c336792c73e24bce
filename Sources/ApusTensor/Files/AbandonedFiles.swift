import Glibc

/// Temporary names of files and folders that are being written, and the removal of those whose writer died.
///
/// A writer works under `<name>.tmp-<pid>` and holds an advisory lock on it. The lock, not the process id, tells
/// whether the writer lives: the system drops it with the process, ids are used again, and in a container every run
/// may have the same id. A shared file system that keeps locks between machines is covered as well.
public enum AbandonedFiles {
    /// Removes what dead writers left in `folder` under temporary names that start with `prefix`.
    ///
    /// What a live writer holds stays, and so does everything that is not named `<prefix...>.tmp-<digits>`. What
    /// cannot be locked or removed (another owner, a file system without locks) is left where it is.
    ///
    /// - Returns: the names removed, sorted.
    /// - Throws: `notFound`, `permissionDenied` or `system` if the folder cannot be listed.
    @discardableResult
    public static func remove(in folder: String, prefix: String) throws(FileError) -> [String] {
        try FolderTree.names(in: folder).filter { name in
            name.hasPrefix(prefix) && isTemporary(name) && (try? removeIfAbandoned("\(folder)/\(name)")) == true
        }
    }

    /// The name under which this process writes what will be `path`.
    package static func temporaryPath(for path: String) -> String { "\(path).tmp-\(getpid())" }

    private static func isTemporary(_ name: String) -> Bool {
        let process = name.utf8.reversed().prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
        let stem = name.utf8.dropLast(process.count)
        return !process.isEmpty && stem.count > 5 && stem.suffix(5).elementsEqual(".tmp-".utf8)
    }

    /// - Returns: whether this call removed it.
    private static func removeIfAbandoned(_ path: String) throws(FileError) -> Bool {
        // O_NOFOLLOW, O_NONBLOCK: a link or a pipe of such a name is none of ours.
        let handle = try FileDescriptor(
            path: path, flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK, operation: "opening what a dead writer left")
        let kind = try handle.status().st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFDIR, handle.lock() == .taken else { return false }
        // The lock is held while removing, so that nobody takes the name over in between.
        try FolderTree.remove(path)
        return true
    }
}
