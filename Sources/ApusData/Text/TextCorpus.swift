import ApusTensor
import Glibc

/// The documents of a text file, or of all files of a folder, as one run of tokens with a mark at each document's end.
public struct TextCorpus: Sendable {
    /// Where the text is from.
    public let path: String
    /// All tokens.
    public let tokens: [Int32]
    /// The places after the last tokens of the documents, ascending.
    public let documentEnds: [Int]
    /// FNV-1a of the tokens: tells a resumed run whether the text has changed.
    public let checksum: UInt64

    /// Reads `path`; a folder's files are read in the order of their names, hidden ones and folders left out.
    ///
    /// - Throws: ``DataError``.
    public init(path: String, vocabulary: some Vocabulary) throws {
        let files = try TextCorpus.files(at: path)
        try TextCorpus.checkSize(files, path: path, memory: CachingAllocator.physicalMemory)
        var tokens: [Int32] = []
        var ends: [Int] = []
        for file in files {
            if let ending = InputFile.packedEndings.first(where: file.hasSuffix) {
                throw DataError.needsPreparation(path: file, what: "a packed file (\(ending))")
            }
            if InputFile.isNamedAsLines(file) { throw DataError.needsPreparation(path: file, what: "JSONL") }
            let bytes = try TextCorpus.read(file)
            if bytes.isEmpty, files.count == 1 { throw DataError.empty(path: file) }
            try TextCorpus.checkText(bytes, path: file)
            tokens += vocabulary.encode(bytes)
            if let end = vocabulary.endOfDocument { tokens.append(end) }
            ends.append(tokens.count)
        }
        guard tokens.count > files.count else { throw DataError.empty(path: path) }
        self.path = path
        self.tokens = tokens
        documentEnds = ends
        checksum = tokens.withUnsafeBytes { bytes in
            bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        }
    }

    /// The part before the last `fraction` of the tokens, and that last part.
    public func split(heldOut fraction: Double) -> (training: ArraySlice<Int32>, heldOut: ArraySlice<Int32>) {
        let boundary = tokens.count - Int(Double(tokens.count) * fraction)
        return (tokens[..<boundary], tokens[boundary...])
    }

    private static func files(at path: String) throws(DataError) -> [String] {
        var status = stat()
        guard stat(path, &status) == 0 else { throw unreadable(path) }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            // Opening a pipe that nobody writes to would wait for ever.
            if status.st_mode & S_IFMT == S_IFREG { return [path] }
            throw .unreadable(path: path, reason: "it is neither a file nor a folder")
        }
        guard let folder = opendir(path) else { throw unreadable(path) }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            let file = "\(path)/\(name)"
            guard !name.hasPrefix("."), stat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
            names.append(file)
        }
        if names.isEmpty { throw .noText(path: path) }
        return names.sorted()
    }

    /// Bytes of memory that a byte of text takes while it becomes tokens: itself, its id, and once more its id.
    private static let memoryPerByte = 9

    /// Text is held in memory whole; what has no room there would end the process.
    private static func checkSize(_ files: [String], path: String, memory: Int) throws(DataError) {
        var total = 0
        for file in files {
            var status = stat()
            if stat(file, &status) == 0 { total += min(Int(status.st_size), 1 << 56) }
            guard total <= memory / memoryPerByte else {
                throw .tooLarge(path: path, bytes: total, most: memory / memoryPerByte)
            }
        }
    }

    private static func read(_ path: String) throws(DataError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw unreadable(path) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw unreadable(path) }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var filled = 0
        while filled < bytes.count {
            let count = bytes.withUnsafeMutableBytes { bytes in
                retrying { Glibc.read(descriptor, bytes.baseAddress?.advanced(by: filled), bytes.count - filled) }
            }
            if count < 0 { throw unreadable(path) }
            if count == 0 { break }
            filled += count
        }
        return Array(bytes[..<filled])
    }

    /// Text has no NUL and few other control bytes; one NUL is proof enough.
    private static func checkText(_ bytes: [UInt8], path: String) throws(DataError) {
        if let offset = bytes.firstIndex(of: 0) { throw .binary(path: path, offset: offset, byte: 0) }
    }

    private static func unreadable(_ path: String) -> DataError {
        .unreadable(path: path, reason: String(cString: strerror(errno)))
    }
}
