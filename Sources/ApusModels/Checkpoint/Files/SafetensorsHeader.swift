import ApusTensor

/// The table at the start of a safetensors file, read and checked against the file's size.
///
/// Format: 8 bytes little-endian header length, a JSON object `{name: {dtype, shape, data_offsets}}` with an optional
/// `__metadata__` of strings, padded with spaces, then the data. The tensors must cover the data exactly.
struct SafetensorsHeader: Sendable {
    /// Bound on the header: the reference reader's.
    ///
    /// It also bounds what a bad file can make the reader allocate.
    static let maximumLength = 100_000_000
    /// Bound on the number of dimensions: NumPy's.
    static let maximumRank = 64

    /// In the order of their bytes.
    let entries: [SafetensorsEntry]
    let metadata: [String: String]

    /// - Parameters:
    ///   - file: the whole file, or its beginning with all of the header.
    ///   - fileSize: bytes of the whole file, where `file` is its beginning.
    ///   - path: its name, for messages.
    init(_ file: UnsafeRawBufferPointer, fileSize: Int? = nil, path: String) throws(FileError) {
        let fileSize = fileSize ?? file.count
        guard file.count >= 8 else {
            throw .truncated(path: path, what: "the length of its header", bytes: file.count, needed: 8)
        }
        let length = UInt64(littleEndian: file.loadUnaligned(as: UInt64.self))
        guard length <= Self.maximumLength else {
            throw .malformed(
                path: path, offset: 0,
                reason: "header length \(length) is over \(Self.maximumLength) bytes; is it a safetensors file?")
        }
        let dataStart = 8 + Int(length)
        guard dataStart <= file.count else {
            throw .truncated(path: path, what: "the end of its header", bytes: file.count, needed: dataStart)
        }
        let text: SafetensorsHeaderText
        do throws(JSONScanner.Fault) {
            var scanner = JSONScanner(UnsafeRawBufferPointer(rebasing: file[..<dataStart]), from: 8)
            text = try SafetensorsHeaderText(&scanner)
        } catch {
            throw .malformed(path: path, offset: error.offset, reason: "safetensors header: \(error.reason)")
        }
        metadata = text.metadata
        var entries: [SafetensorsEntry] = []
        entries.reserveCapacity(text.tensors.count)
        for (name, fields) in text.tensors {
            entries.append(
                try SafetensorsEntry(
                    name, fields, dataStart: dataStart, dataLength: fileSize - dataStart, path: path))
        }
        self.entries = entries.sorted {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }
        try checkCoverage(dataStart: dataStart, fileSize: fileSize, path: path)
    }

    /// Fails unless the tensors follow one another without overlap or hole, up to the last byte.
    private func checkCoverage(dataStart: Int, fileSize: Int, path: String) throws(FileError) {
        var covered = dataStart
        for entry in entries {
            if entry.range.lowerBound < covered {
                throw .invalidTensor(
                    path: path, tensor: entry.name,
                    reason: "overlaps the tensor before it by \(covered - entry.range.lowerBound) bytes")
            }
            if entry.range.lowerBound > covered {
                throw .invalidTensor(
                    path: path, tensor: entry.name,
                    reason: "leaves a hole of \(entry.range.lowerBound - covered) bytes before it")
            }
            covered = entry.range.upperBound
        }
        if covered < fileSize {
            throw .malformed(
                path: path, offset: covered, reason: "\(fileSize - covered) bytes after the last tensor belong to none")
        }
    }
}
