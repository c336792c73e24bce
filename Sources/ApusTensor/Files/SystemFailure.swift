package import Glibc

/// Turns `errno` into the error that names the path and the operation.
///
/// - Parameter folder: the folder whose free space is worth telling when the storage is full.
package func systemFailure(_ path: String, _ operation: String, code: Int32 = errno, folder: String? = nil)
    -> FileError
{
    switch code {
    case ENOENT: .notFound(path: path)
    case ENOTDIR: .wrongKind(path: path, found: "below something that is not a folder", wanted: "an existing place")
    case EISDIR: .wrongKind(path: path, found: "a folder", wanted: "a file")
    case ELOOP: .wrongKind(path: path, found: "a symbolic link", wanted: "a file or folder")
    case EACCES, EPERM: .permissionDenied(path: path, operation: operation)
    case EROFS: .permissionDenied(path: path, operation: operation + ", read-only file system")
    case ENOSPC: .noSpace(path: path, operation: operation, free: freeBytes(folder ?? path), reason: "no space left")
    case EDQUOT: .noSpace(path: path, operation: operation, free: nil, reason: "the disk quota is used up")
    case EFBIG: .noSpace(path: path, operation: operation, free: nil, reason: "the file size limit is reached")
    default: .system(path: path, operation: operation, code: code)
    }
}

/// Bytes an ordinary user may still write to the file system that holds `path`, or nil if it cannot be asked.
private func freeBytes(_ path: String) -> Int? {
    var status = statvfs()
    guard statvfs(path, &status) == 0 else { return nil }
    let product = Int(clamping: status.f_bavail).multipliedReportingOverflow(by: Int(clamping: status.f_frsize))
    return product.overflow ? nil : product.partialValue
}

/// Repeats a system call while a signal interrupts it; -1 is left with its `errno`.
package func retrying(_ call: () -> Int) -> Int {
    while true {
        let result = call()
        if result != -1 || errno != EINTR { return result }
    }
}

/// The kind of thing a mode tells, as a noun for messages.
package func kindName(_ mode: mode_t) -> String {
    switch mode & S_IFMT {
    case S_IFREG: "a file"
    case S_IFDIR: "a folder"
    case S_IFLNK: "a symbolic link"
    case S_IFCHR, S_IFBLK: "a device"
    case S_IFIFO: "a pipe"
    case S_IFSOCK: "a socket"
    default: "something that is not a file"
    }
}

/// A path without the slashes at its end.
package func withoutTrailingSlashes(_ path: String) -> String {
    var trimmed = path[...]
    while trimmed.count > 1, trimmed.last == "/" { trimmed.removeLast() }
    return String(trimmed)
}

/// Folder part and last component of a path; the folder of a bare name is ".".
package func splitPath(_ path: String) -> (folder: String, name: String) {
    let trimmed = withoutTrailingSlashes(path)
    guard let slash = trimmed.lastIndex(of: "/") else { return (".", trimmed) }
    let folder = trimmed[..<slash]
    return (folder.isEmpty ? "/" : String(folder), String(trimmed[trimmed.index(after: slash)...]))
}

/// Whether a name leads to an entry of its own folder and nowhere else.
package func isPlainFileName(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && name.utf8.count <= 255
        && !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == 0 }
}
