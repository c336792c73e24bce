public import ApusTensor

/// `count` uniform draws from `-scale ..< scale`.
public func randomValues(_ count: Int, seed: UInt64, scale: Float = 1) -> [Float] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in generator.value(scale: scale) }
}

/// The upper half of `value`, rounded to nearest even: its `bf16` bit pattern.
public func bfloat16Bits(_ value: Float) -> UInt16 {
    if value.isNaN { return 0x7fc0 }
    let bits = value.bitPattern
    return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ (bits >> 16 & 1)) >> 16)
}

extension CachingAllocator {
    /// A floating tensor with the given elements, rounded to `dtype`; its rows lie `padding` elements apart.
    public func floating(
        _ values: [Float], _ shape: Shape, _ dtype: DType = .f32, rowPadding padding: Int = 0
    ) throws -> Tensor {
        let width = shape.rowCount
        let storage = try allocate(
            byteCount: dtype.byteCount(elements: max(1, shape.rank == 0 ? 1 : shape[0] * (width + padding))),
            purpose: .data)
        let tensor = Tensor(
            storage: storage, shape: shape, rowStride: padding > 0 ? width + padding : nil, dtype: dtype)
        if dtype == .f32 { tensor.assign(values) } else { tensor.assign(values.map(bfloat16Bits)) }
        return tensor
    }

    /// A tensor of uniform draws from `-scale ..< scale`, rounded to `dtype`.
    public func random(
        _ shape: Shape, _ dtype: DType = .f32, seed: UInt64, scale: Float = 1, rowPadding: Int = 0
    ) throws -> Tensor {
        try floating(randomValues(shape.count, seed: seed, scale: scale), shape, dtype, rowPadding: rowPadding)
    }

    /// A dense `i32` tensor.
    public func integers(_ values: [Int], _ shape: Shape? = nil) throws -> Tensor {
        try tensor(values.map(Int32.init), shape ?? Shape(values.count))
    }
}
