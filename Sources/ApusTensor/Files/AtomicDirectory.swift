import Glibc

/// A folder of files that appears under its name whole or not at all.
///
/// Files are written below `stagingPath`, which is `<path>.tmp-<pid>`. `publish` syncs them all, renames the folder
/// and syncs its parent. A value that is dropped unpublished removes the staging folder; a process that is killed
/// leaves it behind for `AbandonedFiles.remove`, which the next writer of the same name also calls.
public struct AtomicDirectory: ~Copyable {
    /// The name the folder will have.
    public let path: String
    /// Where to write until then.
    public let stagingPath: String
    private let lock: FileDescriptor
    private var isPublished = false

    /// What `publish` does with a folder that has the name already.
    public enum ExistingFolder: Sendable {
        /// It stays, and `publish` throws `alreadyExists`.
        case keep
        /// It changes places with the new one in one step and is then removed. Needs a file system that can do so
        /// (ext4, XFS, Btrfs, tmpfs); on others `publish` throws `alreadyExists`.
        case replace
    }

    /// - Throws: `notFound` (no such parent folder), `wrongKind` if the name leads to something that is not a folder,
    ///   `busy`, `permissionDenied`, `noSpace` or `system`.
    public init(path: String) throws(FileError) {
        let path = withoutTrailingSlashes(path)
        let (folder, name) = splitPath(path)
        guard isPlainFileName(name) else { throw .unsafeFileName(path: path, name: name) }
        if let kind = try FolderTree.kind(path), kind != S_IFDIR {
            throw .wrongKind(path: path, found: kindName(kind), wanted: "a folder, or a new name")
        }
        _ = try? AbandonedFiles.remove(in: folder, prefix: "\(name).tmp-")
        let staging = AbandonedFiles.temporaryPath(for: path)
        lock = try Self.makeStaging(staging, for: path)
        self.path = path
        stagingPath = staging
    }

    private static func makeStaging(
        _ staging: String, for path: String
    ) throws(FileError) -> FileDescriptor {
        if mkdir(staging, 0o777) == -1 {
            // A folder of this name now has a live writer, for the others have just been cleared away.
            if errno == EEXIST { throw .busy(path: path, temporary: staging) }
            throw systemFailure(path, "creating the folder to write in", folder: splitPath(path).folder)
        }
        let lock = try FileDescriptor(
            path: staging, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW, operation: "opening folder")
        // Somebody who clears up may have seen the folder in the moment before it was locked.
        guard lock.lock() != .heldByAnother, try lock.isStillNamed() else {
            throw .busy(path: path, temporary: staging)
        }
        return lock
    }

    deinit {
        if !isPublished { try? FolderTree.remove(stagingPath) }
    }

    /// Makes everything durable and gives the folder its name.
    ///
    /// - Throws: `alreadyExists`, `noSpace`, `permissionDenied` or `system`. An existing folder of the name is then
    ///   unharmed, except that after a failure to sync the parent the new one may already have the name.
    public consuming func publish(_ existing: ExistingFolder = .keep) throws(FileError) {
        try FolderTree.sync(stagingPath)
        if existing == .replace, try FolderTree.kind(path) != nil {
            try Renaming.exchange(stagingPath, path)
            // The old folder has the staging name now, and the deinit removes it: but only once the exchange is
            // durable, or a power cut could leave the old name leading to what has been removed.
            do throws(FileError) {
                try FileDescriptor.syncFolder(splitPath(path).folder)
            } catch {
                isPublished = true
                throw error
            }
        } else {
            try Renaming.toFreeName(stagingPath, path)
            isPublished = true
            try FileDescriptor.syncFolder(splitPath(path).folder)
        }
    }
}
