public import ApusTensor

/// A safetensors file, mapped and checked: every entry is inside the file, has its exact size and overlaps no other.
///
/// Opening reads the header alone; tensor bytes are paged in when touched.
public final class SafetensorsFile: Sendable {
    /// The name it was opened under.
    public let path: String
    /// All tensors in the order of their bytes.
    public let entries: [SafetensorsEntry]
    /// The strings of `__metadata__`.
    public let metadata: [String: String]
    private let file: MappedFile
    private let positions: [String: Int]

    /// - Throws: `notFound`, `wrongKind`, `permissionDenied`, `truncated`, `malformed`, `invalidTensor` or
    ///   `unsupportedDType` (a format of unknown size).
    public init(path: String) throws(FileError) {
        let file = try MappedFile(path: path)
        let header = try file.withUnsafeBytes { bytes throws(FileError) in
            try SafetensorsHeader(bytes, path: path)
        }
        self.path = path
        self.file = file
        entries = header.entries
        metadata = header.metadata
        positions = Dictionary(uniqueKeysWithValues: header.entries.enumerated().map { ($1.name, $0) })
    }

    /// Tensor names in the order of their bytes.
    public var names: [String] { entries.map(\.name) }

    /// Whether the file holds a tensor of this name.
    public func contains(_ name: String) -> Bool { positions[name] != nil }

    /// - Throws: `noSuchTensor`.
    public func entry(_ name: String) throws(FileError) -> SafetensorsEntry {
        guard let position = positions[name] else {
            throw .noSuchTensor(path: path, tensor: name, known: entries.prefix(3).map(\.name))
        }
        return entries[position]
    }

    /// The stored bytes of a tensor, in whatever format it has.
    ///
    /// - Throws: `noSuchTensor`.
    public func bytes(_ name: String) throws(FileError) -> FileBytes {
        file[try entry(name).range]
    }

    /// The dtype of a tensor that Apus can use as it is stored.
    ///
    /// - Throws: `noSuchTensor`, `unsupportedDType`.
    public func dtype(_ name: String) throws(FileError) -> DType {
        let entry = try entry(name)
        guard let dtype = entry.dtype else {
            throw .unsupportedDType(
                path: path, tensor: name, found: entry.stored.rawValue, readable: SafetensorsDType.readableNames)
        }
        return dtype
    }
}
