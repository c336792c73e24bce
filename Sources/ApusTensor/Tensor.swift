/// A view of elements in a storage: row-major, at a byte offset, with a stride between entries of its first dimension.
///
/// The dimensions below the first are dense. The first dimension's stride may be larger than they need, so that a
/// range of columns of a fused projection's output is a tensor too. Copies of a tensor share its storage.
public struct Tensor: Sendable {
    /// The memory that the elements are in.
    public private(set) var storage: Storage
    /// Where the first element is, in bytes from the start of the storage.
    public let byteOffset: Int
    /// Extents, outermost first.
    public let shape: Shape
    /// Elements between consecutive entries of the first dimension.
    public let rowStride: Int
    /// Element type.
    public let dtype: DType
    /// Completes the contents when work under way elsewhere writes them; `nil` when they are complete already.
    public var ready: Event?

    /// A dense view of `storage` at `byteOffset`, or one whose rows are `rowStride` elements apart.
    public init(storage: Storage, byteOffset: Int = 0, shape: Shape, rowStride: Int? = nil, dtype: DType) {
        let width = shape.rowCount
        let stride = rowStride ?? width
        precondition(stride >= width || shape.count == 0, "rows overlap")
        let span = shape.rank == 0 ? 1 : shape[0] == 0 ? 0 : (shape[0] - 1) * stride + width
        precondition(
            byteOffset >= 0 && byteOffset + dtype.byteCount(elements: span) <= storage.byteCount,
            "a view of \(shape) \(dtype) at byte \(byteOffset) leaves its storage of \(storage.byteCount) bytes")
        self.storage = storage
        self.byteOffset = byteOffset
        self.shape = shape
        self.rowStride = stride
        self.dtype = dtype
    }

    /// Where the elements are.
    public var device: Device { storage.device }
    /// The address of the first element on a device, where the host cannot follow it.
    public var deviceAddress: UInt64 {
        precondition(storage.device != .cpu, "an op on a device got a tensor of the host")
        return UInt64(UInt(bitPattern: storage.pointer)) + UInt64(byteOffset)
    }
    /// Number of elements.
    public var count: Int { shape.count }
    /// Elements of one entry of the first dimension.
    public var rowCount: Int { shape.rowCount }
    /// Whether the elements follow each other without gaps.
    public var isContiguous: Bool { shape.rank == 0 || rowStride == shape.rowCount || shape[0] <= 1 }
}

extension Tensor {
    /// Entries `range` of the first dimension, sharing the storage.
    public subscript(range: Range<Int>) -> Tensor {
        precondition(
            shape.rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape[0], "rows \(range) of \(shape)")
        return view(offset: range.lowerBound * rowStride, shape.replacingFirst(with: range.count), rowStride: rowStride)
    }

    /// Columns `range` of a matrix, sharing the storage.
    public func columns(_ range: Range<Int>) -> Tensor {
        precondition(
            shape.rank == 2 && range.lowerBound >= 0 && range.upperBound <= shape[1], "columns \(range) of \(shape)")
        return view(offset: range.lowerBound, Shape(shape[0], range.count), rowStride: rowStride)
    }

    /// The same elements under other extents. Only the grouping of a strided tensor's columns may change.
    public func reshaped(_ dimensions: Int...) -> Tensor {
        let target = Shape(dimensions)
        precondition(target.count == count, "\(shape) has \(count) elements, \(target) has \(target.count)")
        if isContiguous { return view(offset: 0, target, rowStride: target.rowCount) }
        precondition(target[0] == shape[0], "a strided tensor keeps its first extent")
        return view(offset: 0, target, rowStride: rowStride)
    }

    private func view(offset: Int, _ shape: Shape, rowStride: Int) -> Tensor {
        var result = Tensor(
            storage: storage, byteOffset: byteOffset + dtype.byteCount(elements: offset), shape: shape,
            rowStride: rowStride, dtype: dtype)
        result.ready = ready
        return result
    }
}

extension Tensor {
    /// Whether this value holds the only reference to its storage and no other stream uses it, so that its contents may be
    /// overwritten.
    public mutating func isSoleOwnerOfStorage() -> Bool {
        isKnownUniquelyReferenced(&storage) && !storage.isInUseElsewhere
    }
}
