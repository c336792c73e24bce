/// A Swift type whose layout is that of a tensor's elements.
public protocol TensorElement: BitwiseCopyable, Sendable {
    /// The element type that it stands for.
    static var dtype: DType { get }
}

extension Float: TensorElement {
    /// `f32`.
    public static var dtype: DType { .f32 }
}

extension Int32: TensorElement {
    /// `i32`.
    public static var dtype: DType { .i32 }
}

extension UInt8: TensorElement {
    /// `u8`.
    public static var dtype: DType { .u8 }
}

extension UInt16: TensorElement {
    /// The bit pattern of a `bf16`.
    public static var dtype: DType { .bf16 }
}

extension Tensor {
    /// The address of the first element in host memory, valid while the tensor's storage is.
    public func pointer<Element: TensorElement>(to type: Element.Type = Element.self) -> UnsafeMutablePointer<Element> {
        precondition(device == .cpu, "a tensor on \(device) has no host address")
        precondition(Element.dtype == dtype, "the tensor holds \(dtype), not \(Element.dtype)")
        return storage.pointer.advanced(by: byteOffset).assumingMemoryBound(to: Element.self)
    }

    /// The address of the first byte in host memory.
    public var rawPointer: UnsafeMutableRawPointer {
        precondition(device == .cpu, "a tensor on \(device) has no host address")
        return storage.pointer.advanced(by: byteOffset)
    }

    /// The elements of a host tensor, row by row, once the work that completes them is over.
    ///
    /// Where that work failed the elements are undefined; ``ready`` tells.
    public func array<Element: TensorElement>(of type: Element.Type = Element.self) -> [Element] {
        try? ready?.wait()
        let source = pointer(to: type)
        let width = rowCount
        guard shape.rank > 0, !isContiguous else { return Array(UnsafeBufferPointer(start: source, count: count)) }
        var result: [Element] = []
        result.reserveCapacity(count)
        for row in 0..<shape[0] {
            result.append(contentsOf: UnsafeBufferPointer(start: source + row * rowStride, count: width))
        }
        return result
    }

    /// The elements of an `f32` or `bf16` host tensor as `Float`, once the work that completes them is over.
    public func floats() -> [Float] {
        if dtype == .f32 { return array(of: Float.self) }
        return array(of: UInt16.self).map { Float(bitPattern: UInt32($0) << 16) }
    }

    /// Overwrites a host tensor with `values`, row by row.
    public func assign<Element: TensorElement>(_ values: some Collection<Element>) {
        precondition(values.count == count, "\(values.count) values for \(count) elements")
        let target = pointer(to: Element.self)
        let width = max(rowCount, 1)
        // Whole rows where the values lie in memory: one by one, each would cost a call through the collection.
        let isCopied: Void? = values.withContiguousStorageIfAvailable { source in
            guard let first = source.baseAddress else { return }
            if isContiguous { return target.update(from: first, count: source.count) }
            for row in 0..<source.count / width {
                (target + row * rowStride).update(from: first + row * width, count: width)
            }
        }
        if isCopied != nil { return }
        for (index, value) in values.enumerated() { target[index / width * rowStride + index % width] = value }
    }
}

extension CachingAllocator {
    /// A dense tensor with undefined contents.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func empty(_ shape: Shape, _ dtype: DType, _ purpose: MemoryPurpose) throws(TensorError) -> Tensor {
        let storage = try allocate(byteCount: dtype.byteCount(elements: shape.count), purpose: purpose)
        return Tensor(storage: storage, shape: shape, dtype: dtype)
    }

    /// A dense host tensor with the given elements.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func tensor<Element: TensorElement>(
        _ values: [Element], _ shape: Shape, _ purpose: MemoryPurpose = .data
    ) throws(TensorError) -> Tensor {
        let result = try empty(shape, Element.dtype, purpose)
        result.assign(values)
        return result
    }
}
