import Glibc

/// The three ways in which a finished temporary gets its name; each is one step for everybody who looks.
package enum Renaming {
    /// The new name may lead to a file, which is replaced.
    package static func replace(_ from: String, with to: String) throws(FileError) {
        if rename(from, to) == -1 { throw systemFailure(to, "renaming the finished file to this name") }
    }

    /// The new name must be free.
    package static func toFreeName(_ from: String, _ to: String) throws(FileError) {
        if rename2(from, to, flags: noReplace) { return }
        switch errno {
        case EEXIST, ENOTEMPTY: throw .alreadyExists(path: to)
        case EINVAL, ENOSYS:
            // A file system without the flag. A plain rename replaces no folder but an empty one.
            if try FolderTree.kind(to) != nil { throw .alreadyExists(path: to) }
            if rename(from, to) == -1 { throw systemFailure(to, "renaming the finished folder to this name") }
        default: throw systemFailure(to, "renaming the finished folder to this name")
        }
    }

    /// Both names exist and change places.
    package static func exchange(_ from: String, _ to: String) throws(FileError) {
        if rename2(from, to, flags: exchange) { return }
        // Without the flag a replacement would leave a moment with neither; refused rather than risked.
        if errno == EINVAL || errno == ENOSYS { throw .alreadyExists(path: to) }
        throw systemFailure(to, "exchanging the finished folder with the one of this name")
    }

    // linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE.
    private static let noReplace: UInt32 = 1
    private static let exchange: UInt32 = 2

    private typealias RenameAt2 =
        @convention(c) (Int32, UnsafePointer<CChar>, Int32, UnsafePointer<CChar>, UInt32) -> Int32

    /// `renameat2(2)`, looked up because the Glibc module does not declare it; false leaves `errno`.
    private static func rename2(_ from: String, _ to: String, flags: UInt32) -> Bool {
        guard let symbol = dlsym(nil, "renameat2") else {
            errno = ENOSYS
            return false
        }
        let call = unsafeBitCast(symbol, to: RenameAt2.self)
        return from.withCString { from in to.withCString { to in call(AT_FDCWD, from, AT_FDCWD, to, flags) } } == 0
    }
}
