public import ApusTensor

/// Elements between the host and the device: always asked for, never implied by another op.
public protocol TransferOp {
    /// Overwrites a tensor with elements of its type that lie on the host, dense and row by row.
    ///
    /// The bytes may be changed as soon as this returns. A device gets them on its stream, before any later op.
    func upload(_ bytes: UnsafeRawBufferPointer, into target: Tensor) throws
    /// The elements on the host, dense unless the tensor is on the host anyway: then it is the tensor itself.
    ///
    /// Returns at once, with the result's ``Tensor/ready`` event to wait for. A copy from a device is made on its stream,
    /// after all earlier ops.
    func download(_ source: Tensor) throws -> Tensor
    /// The same of several tensors, in as few copies as the device can.
    func download(_ sources: [Tensor]) throws -> [Tensor]
}

extension TransferOp {
    /// One after the other.
    public func download(_ sources: [Tensor]) throws -> [Tensor] { try sources.map { try download($0) } }
}

extension TransferOp where Self: Backend {
    /// Overwrites a tensor with `values`, row by row.
    public func upload<Element: TensorElement>(_ values: [Element], into target: Tensor) throws {
        precondition(Element.dtype == target.dtype, "the tensor holds \(target.dtype), not \(Element.dtype)")
        try values.withUnsafeBytes { try upload($0, into: target) }
    }

    /// A dense tensor with the given elements.
    public func tensor<Element: TensorElement>(
        _ values: [Element], _ shape: Shape, _ purpose: MemoryPurpose = .data
    ) throws -> Tensor {
        let result = try empty(shape, Element.dtype, purpose)
        try upload(values, into: result)
        return result
    }

    /// The elements of a tensor, row by row. Waits for the device.
    public func array<Element: TensorElement>(_ tensor: Tensor, of type: Element.Type = Element.self) throws
        -> [Element]
    {
        let host = try download(tensor)
        try host.ready?.wait()
        return host.array(of: type)
    }

    /// The elements of an `f32` or `bf16` tensor as `Float`. Waits for the device.
    public func floats(_ tensor: Tensor) throws -> [Float] {
        let host = try download(tensor)
        try host.ready?.wait()
        return host.floats()
    }
}

extension CPUBackend: TransferOp {
    public func upload(_ bytes: UnsafeRawBufferPointer, into target: Tensor) throws {
        precondition(
            bytes.count == target.dtype.byteCount(elements: target.count), "\(bytes.count) bytes for \(target.shape)")
        let width = target.dtype.byteCount(elements: target.isContiguous ? target.count : target.rowCount)
        guard let source = bytes.baseAddress, width > 0 else { return }
        for row in 0..<bytes.count / width {
            target.rowPointer(row).copyMemory(from: source + row * width, byteCount: width)
        }
    }

    public func download(_ source: Tensor) -> Tensor { source }
}
