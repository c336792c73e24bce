public import ApusTensor

/// `checksums.json`: size and checksum of every file of a checkpoint.
public struct CheckpointManifest: Sendable, Hashable {
    /// Name of the manifest in its folder.
    public static let fileName = "checksums.json"

    /// By file name, relative to the folder.
    public let files: [String: FileDigest]

    /// - Throws: `unsafeFileName`.
    public init(files: [String: FileDigest]) throws(FileError) {
        for name in files.keys where !isPlainFileName(name) || name == Self.fileName {
            throw .unsafeFileName(path: Self.fileName, name: name)
        }
        self.files = files
    }

    /// Reads every file of a folder through, the manifest left out.
    ///
    /// - Throws: `wrongKind` if the folder holds another folder; what `FileDigest` throws.
    public init(ofFolder folder: String) throws(FileError) {
        var files: [String: FileDigest] = [:]
        for name in try FolderTree.names(in: folder) where name != Self.fileName {
            files[name] = try FileDigest(ofFile: "\(folder)/\(name)")
        }
        try self.init(files: files)
    }

    /// Reads a folder's manifest.
    ///
    /// - Throws: what `FileContents` throws, `malformed`, `unsafeFileName`.
    public init(folder: String) throws(FileError) {
        let path = "\(withoutTrailingSlashes(folder))/\(Self.fileName)"
        self = try FileContents(path: path).withUnsafeBytes { text throws(FileError) in
            try CheckpointManifest(text, path: path)
        }
    }

    /// Writes the manifest into a folder.
    ///
    /// - Throws: what `AtomicFile` throws.
    public func write(toFolder folder: String) throws(FileError) {
        try AtomicFile.write(json, to: "\(withoutTrailingSlashes(folder))/\(Self.fileName)")
    }

    /// Reads every listed file through and compares.
    ///
    /// Files that are not listed are left alone.
    ///
    /// - Throws: `notFound`, `wrongSize` or `wrongChecksum` with the path of the first bad file in the order of names;
    ///   what `FileDigest` throws.
    public func verify(folder: String) throws(FileError) {
        let folder = withoutTrailingSlashes(folder)
        for (name, expected) in files.sorted(by: { $0.key < $1.key }) {
            let path = "\(folder)/\(name)"
            let found = try FileDigest(ofFile: path)
            if found.count != expected.count {
                throw .wrongSize(path: path, expected: expected.count, found: found.count)
            }
            if found.checksum != expected.checksum {
                throw .wrongChecksum(path: path, expected: expected.checksum, found: found.checksum)
            }
        }
    }
}
