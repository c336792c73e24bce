package import Glibc

/// Whole folders: listing, syncing and removing them.
///
/// Symbolic links are never followed.
package enum FolderTree {
    /// Names in a folder, without "." and "..", sorted.
    package static func names(in folder: String) throws(FileError) -> [String] {
        guard let stream = opendir(folder) else { throw systemFailure(folder, "listing the folder") }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let item = readdir(stream) else { break }
            let name = withUnsafePointer(to: &item.pointee.d_name) { tuple in
                String(cString: UnsafeRawPointer(tuple).assumingMemoryBound(to: CChar.self))
            }
            if name != ".", name != ".." { names.append(name) }
        }
        if errno != 0 { throw systemFailure(folder, "listing the folder") }
        return names.sorted()
    }

    /// Kind of what a name leads to, the link itself if it is one; nil if nothing is there.
    package static func kind(_ path: String) throws(FileError) -> mode_t? {
        var status = stat()
        if lstat(path, &status) == 0 { return status.st_mode & S_IFMT }
        if errno == ENOENT { return nil }
        throw systemFailure(path, "reading its kind")
    }

    /// Waits until the storage holds every file of a folder and the folders themselves.
    package static func sync(_ folder: String) throws(FileError) {
        for name in try names(in: folder) {
            let path = "\(folder)/\(name)"
            switch try kind(path) {
            case S_IFDIR: try sync(path)
            case S_IFREG: try FileDescriptor(path: path, flags: O_RDONLY | O_NOFOLLOW, operation: "opening").sync()
            default: break
            }
        }
        try FileDescriptor.syncFolder(folder)
    }

    /// Removes a file, or a folder with all it holds.
    package static func remove(_ path: String) throws(FileError) {
        guard let kind = try kind(path) else { return }
        if kind == S_IFDIR {
            for name in try names(in: path) { try remove("\(path)/\(name)") }
        }
        let result = kind == S_IFDIR ? rmdir(path) : unlink(path)
        if result == -1, errno != ENOENT { throw systemFailure(path, "removing") }
    }
}
