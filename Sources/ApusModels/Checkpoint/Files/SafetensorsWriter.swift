public import ApusTensor

/// Writes one safetensors file as a stream: the header first, then the tensors' bytes in the declared order.
///
/// The file appears under its name at `finish`, whole and on storage; until then nothing of that name is touched.
public struct SafetensorsWriter: ~Copyable {
    /// The name the file will have.
    public let path: String
    private var file: AtomicFile
    private let tensors: [TensorSpec]
    private let sizes: [Int]
    /// The tensor being written and how many of its bytes are.
    private var current = 0
    private var written = 0

    /// Writes the header.
    ///
    /// - Parameters:
    ///   - tensors: what will be written, in this order. An element is aligned in the file to its own size if wider
    ///     formats come before narrower ones.
    ///   - metadata: strings for `__metadata__`, written in the order of their keys.
    /// - Throws: `invalidTensor` (repeated or reserved name, negative or overflowing shape, header over the format's
    ///   limit) or what `AtomicFile` throws.
    public init(path: String, tensors: [TensorSpec], metadata: [String: String] = [:]) throws(FileError) {
        let header = try SafetensorsHeader.encode(tensors, metadata: metadata, path: path)
        var sizes: [Int] = []
        for tensor in tensors { sizes.append(try tensor.byteCount(path: path)) }
        var file = try AtomicFile(path: path)
        try file.write(header)
        self.path = path
        self.tensors = tensors
        self.sizes = sizes
        self.file = file
    }

    /// Appends bytes to a tensor: all of it, or the next piece.
    ///
    /// - Throws: `writeOutOfOrder` if another tensor is due or the tensor would get too long; `noSpace`, `system`.
    public mutating func append(_ bytes: UnsafeRawBufferPointer, to name: String) throws(FileError) {
        while current < tensors.count, tensors[current].name != name, written == sizes[current] {
            current += 1
            written = 0
        }
        guard current < tensors.count else {
            throw .writeOutOfOrder(path: path, reason: "no tensor is due, but \(quoted(name)) was written")
        }
        let due = tensors[current]
        guard due.name == name else {
            throw .writeOutOfOrder(
                path: path,
                reason: "\(quoted(name)) was written while \(quoted(due.name)) lacks \(sizes[current] - written) bytes")
        }
        guard bytes.count <= sizes[current] - written else {
            throw .writeOutOfOrder(
                path: path,
                reason: "\(quoted(name)) has \(sizes[current]) bytes, but \(written + bytes.count) were written")
        }
        try file.write(bytes)
        written += bytes.count
    }

    /// Syncs the file and gives it its name.
    ///
    /// - Throws: `writeOutOfOrder` if bytes are missing; `noSpace`, `permissionDenied`, `system`. The file is then not
    ///   there, or is as it was.
    @discardableResult
    public consuming func finish() throws(FileError) -> FileDigest {
        while current < tensors.count, written == sizes[current] {
            current += 1
            written = 0
        }
        guard current == tensors.count else {
            throw .writeOutOfOrder(
                path: path,
                reason: "closed while \(quoted(tensors[current].name)) lacks \(sizes[current] - written) bytes")
        }
        return try file.publish()
    }
}

extension SafetensorsHeader {
    /// The length field and the JSON table, padded with spaces so that the data starts at a multiple of 8 bytes.
    static func encode(
        _ tensors: [TensorSpec], metadata: [String: String], path: String
    ) throws(FileError) -> [UInt8] {
        var fields: [String] = []
        if !metadata.isEmpty {
            let strings = metadata.sorted { $0.key < $1.key }.map { "\(jsonString($0.key)):\(jsonString($0.value))" }
            fields.append("\"__metadata__\":{\(strings.joined(separator: ","))}")
        }
        var names: Set<String> = ["__metadata__"]
        var begin = 0
        for tensor in tensors {
            if !names.insert(tensor.name).inserted {
                throw .invalidTensor(path: path, tensor: tensor.name, reason: "has a name that is taken or reserved")
            }
            let (end, overflow) = begin.addingReportingOverflow(try tensor.byteCount(path: path))
            if overflow { throw .invalidTensor(path: path, tensor: tensor.name, reason: "makes the file too large") }
            fields.append(
                "\(jsonString(tensor.name)):{\"dtype\":\"\(SafetensorsDType(tensor.dtype).rawValue)\","
                    + "\"shape\":[\(tensor.shape.map(String.init).joined(separator: ","))],"
                    + "\"data_offsets\":[\(begin),\(end)]}")
            begin = end
        }
        var json = Array("{\(fields.joined(separator: ","))}".utf8)
        json.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - json.count % 8) % 8))
        guard json.count <= maximumLength else {
            throw .malformed(
                path: path, offset: nil,
                reason: "the header would take \(json.count) bytes, the limit is \(maximumLength): split the tensors")
        }
        return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json
    }
}
