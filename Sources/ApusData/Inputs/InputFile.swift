import ApusTensor
import Glibc

/// How the documents lie in a file.
public enum InputFormat: String, Sendable, CaseIterable {
    /// By the file's name: JSONL when it ends in `.jsonl` or `.ndjson`, `.gz` or `.zst` behind it or not; else text. Text
    /// that begins with a line as of JSONL is refused: which of the two is meant has to be said.
    case auto
    /// The whole file is one document.
    case text
    /// Each line is a JSON object with a document's text as `text`.
    case jsonl
}

/// One file to read documents from.
struct InputFile: Sendable {
    /// What standard input is called, and what it is shown as.
    static let standardInputName = "-"
    static let standardInput = "standard input"

    /// `nil` is standard input.
    let path: String?
    /// Which of the named inputs it belongs to.
    let input: Int
    /// ``InputFormat/jsonl`` or ``InputFormat/text``.
    let isLines: Bool
    /// Whether the name alone says which, so that the content may contradict it.
    var isGuessed = false

    /// What messages call it.
    var name: String { path ?? Self.standardInput }

    /// Its bytes, unpacked.
    ///
    /// - Throws: ``DataError``
    func reader() throws -> any ByteReader {
        guard let path else { return try PlainReader(path: nil) }
        if path.hasSuffix(".gz") { return try GzipReader(path: path) }
        if path.hasSuffix(".zst") { return try ZstandardReader(path: path) }
        return try PlainReader(path: path)
    }
}

extension InputFile {
    /// The files that `inputs` name, in their order: a folder's files are taken with all below it, in the order of their
    /// paths; hidden ones are left out.
    ///
    /// - Throws: ``DataError``
    static func list(_ inputs: [String], format: InputFormat) throws -> [InputFile] {
        var files: [InputFile] = []
        for (index, input) in inputs.enumerated() {
            let paths = input == standardInputName ? [nil] : try paths(of: input).map(Optional.some)
            if paths.isEmpty { throw DataError.noText(path: input) }
            files += paths.map {
                InputFile(path: $0, input: index, isLines: isLines($0, format), isGuessed: format == .auto)
            }
        }
        return files
    }

    private static func isLines(_ path: String?, _ format: InputFormat) -> Bool {
        guard format == .auto else { return format == .jsonl }
        var name = (path ?? "")[...]
        for ending in packedEndings where name.hasSuffix(ending) { name = name.dropLast(ending.count) }
        return isNamedAsLines(name)
    }

    /// Endings of names of packed files.
    static let packedEndings = [".gz", ".zst"]

    /// Whether a name is that of a JSONL file.
    static func isNamedAsLines(_ name: some StringProtocol) -> Bool {
        name.hasSuffix(".jsonl") || name.hasSuffix(".ndjson")
    }

    private static func paths(of path: String) throws -> [String] {
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw DataError.unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG, S_IFIFO: return [path]
        case S_IFDIR:
            var paths: [String] = []
            try collect(below: withoutTrailingSlashes(path), into: &paths)
            return paths
        default: throw DataError.unreadable(path: path, reason: "it is neither a file nor a folder")
        }
    }

    private static func collect(below folder: String, into paths: inout [String]) throws {
        for name in try FolderTree.names(in: folder) where !name.hasPrefix(".") {
            let path = folder == "/" ? "/\(name)" : "\(folder)/\(name)"
            // A link to a folder is not followed: it may lead back.
            if try FolderTree.kind(path) == S_IFDIR {
                try collect(below: path, into: &paths)
                continue
            }
            var status = stat()
            if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG { paths.append(path) }
        }
    }
}
