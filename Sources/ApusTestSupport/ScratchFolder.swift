import Glibc
import Testing

/// A folder of its own for one test, removed with all it holds at the end of its life.
public final class ScratchFolder: Sendable {
    /// Where it is, without a slash at the end.
    public let path: String

    /// Makes an empty folder.
    public init() throws {
        var template = Array("/tmp/apus-test-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template), "no folder can be made in /tmp"))
    }

    deinit { removeTree(path) }

    /// The path of `name` in the folder, whether there is such a file or not.
    public func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Writes a file in the folder and returns its path.
    @discardableResult
    public func write(_ name: String, _ bytes: some Collection<UInt8>) throws -> String {
        let file = try #require(fopen(file(name), "w"), "\(name) cannot be written")
        defer { fclose(file) }
        let bytes = Array(bytes)
        try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count && fflush(file) == 0)
        return self.file(name)
    }

    /// Writes a text in the folder and returns its path.
    @discardableResult
    public func write(_ name: String, text: String) throws -> String { try write(name, text.utf8) }

    /// Makes a folder in the folder and returns its path.
    @discardableResult
    public func makeFolder(_ name: String) throws -> String {
        try #require(mkdir(file(name), 0o755) == 0, "\(name) cannot be made")
        return file(name)
    }

    /// Copies a folder of plain files, and of folders of them, into the folder and returns the copy's path.
    public func copy(folder source: String, as name: String) throws -> String {
        try makeFolder(name)
        for item in folderNames(source) {
            if isFolder("\(source)/\(item)") {
                _ = try copy(folder: "\(source)/\(item)", as: "\(name)/\(item)")
            } else {
                try write("\(name)/\(item)", fileBytes("\(source)/\(item)"))
            }
        }
        return file(name)
    }

    /// The names in the folder, sorted.
    public var names: [String] {
        get throws {
            try #require(isFolder(path))
            return folderNames(path)
        }
    }
}

private func isFolder(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

private func removeTree(_ path: String) {
    guard isFolder(path) else {
        unlink(path)
        return
    }
    for name in folderNames(path) { removeTree("\(path)/\(name)") }
    rmdir(path)
}
