public import ApusTensor

/// Where and how one tensor is stored.
public struct SafetensorsEntry: Sendable, Hashable {
    /// The tensor's name, unique in its file.
    public let name: String
    /// The format its elements have in the file.
    public let stored: SafetensorsDType
    /// Sizes of the dimensions, outermost first; empty for a scalar.
    public let shape: [Int]
    /// Bytes of the tensor, counted from the start of the file.
    public let range: Range<Int>

    /// The format Apus computes with, or nil: then one of the conversions may help.
    public var dtype: DType? { stored.dtype }

    /// Number of elements: the product of the shape.
    public var count: Int { range.count * 8 / stored.bitCount }
}

extension SafetensorsEntry {
    /// Holds what the header says of one tensor against itself and against the size of the data.
    ///
    /// - Parameters:
    ///   - dataStart: byte of the file that data offset 0 stands for.
    ///   - dataLength: bytes of data in the file.
    init(
        _ name: String, _ fields: SafetensorsHeaderText.Fields, dataStart: Int, dataLength: Int, path: String
    ) throws(FileError) {
        func invalid(_ reason: String) -> FileError {
            .invalidTensor(path: path, tensor: name, reason: reason)
        }
        guard let dtypeName = fields.dtype else { throw invalid("has no 'dtype'") }
        guard let shape = fields.shape else { throw invalid("has no 'shape'") }
        guard let offsets = fields.offsets else { throw invalid("has no 'data_offsets'") }
        guard let stored = SafetensorsDType(rawValue: dtypeName) else {
            throw .unsupportedDType(
                path: path, tensor: name, found: dtypeName, readable: SafetensorsDType.readableNames)
        }
        guard offsets.count == 2 else { throw invalid("has \(offsets.count) data offsets instead of 2") }
        let (begin, end) = (offsets[0], offsets[1])
        guard begin <= end else { throw invalid("begins at data byte \(begin), after its end at \(end)") }
        guard end <= dataLength else {
            throw invalid("ends at data byte \(end), but the file holds \(dataLength) bytes of data")
        }
        guard let byteCount = stored.byteCount(shape: shape) else {
            throw invalid("has shape \(shape), whose size in \(dtypeName) overflows or is not a whole number of bytes")
        }
        guard end - begin == byteCount else {
            throw invalid("takes \(end - begin) bytes, but \(dtypeName) of shape \(shape) needs \(byteCount)")
        }
        self.init(name: name, stored: stored, shape: shape, range: (dataStart + begin)..<(dataStart + end))
    }
}
