public import ApusTensor

/// A tensor to be written: name, format and shape.
public struct TensorSpec: Sendable, Hashable {
    /// Name, unique among those written together.
    public let name: String
    /// Format of the elements.
    public let dtype: DType
    /// Sizes of the dimensions, outermost first; empty for a scalar.
    public let shape: [Int]

    /// Describes a tensor; sizes are checked by the writer that gets it.
    public init(name: String, dtype: DType, shape: [Int]) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
    }

    /// Size in bytes.
    ///
    /// - Throws: `invalidTensor` if a dimension is negative or the size overflows.
    func byteCount(path: String) throws(FileError) -> Int {
        if let negative = shape.first(where: { $0 < 0 }) {
            throw .invalidTensor(path: path, tensor: name, reason: "has the negative dimension \(negative)")
        }
        if shape.count > SafetensorsHeader.maximumRank {
            throw .invalidTensor(
                path: path, tensor: name, reason: "has more than \(SafetensorsHeader.maximumRank) dimensions")
        }
        guard let count = SafetensorsDType(dtype).byteCount(shape: shape) else {
            throw .invalidTensor(path: path, tensor: name, reason: "has shape \(shape), whose size overflows")
        }
        return count
    }
}
