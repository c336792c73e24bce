public import ApusTensor
public import Testing

/// Expects `actual` to be within `tolerance` of `expected`, relative by norm, and tells where they differ most if not.
public func expectClose(
    _ actual: [Float], _ expected: [Double], within tolerance: Double, _ name: String,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    guard actual.count == expected.count else {
        Issue.record("\(name): \(actual.count) values, expected \(expected.count)", sourceLocation: sourceLocation)
        return
    }
    let error = relativeError(actual, expected)
    if error <= tolerance { return }
    var worst = 0
    for index in actual.indices where distance(actual, expected, index) > distance(actual, expected, worst) {
        worst = index
    }
    Issue.record(
        """
        \(name): relative error \(error) by norm, \(tolerance) allowed; of \(actual.count) values the farthest is \
        [\(worst)] = \(actual[worst]), expected \(expected[worst])
        """, sourceLocation: sourceLocation)
}

/// A distance that ranks NaN above every number.
private func distance(_ actual: [Float], _ expected: [Double], _ index: Int) -> Double {
    let value = abs(Double(actual[index]) - expected[index])
    return value.isNaN ? .infinity : value
}

/// Expects a tensor to be within its type's tolerance (``Tolerance/relativeNorm(_:)``) of `expected`.
public func expectClose(
    _ actual: Tensor, _ expected: [Double], within tolerance: Double? = nil, _ name: String,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    expectClose(
        actual.floats(), expected, within: tolerance ?? Tolerance.relativeNorm(actual.dtype), name,
        sourceLocation: sourceLocation)
}

/// Expects two tensors to hold the same bits.
public func expectSameBits(
    _ actual: Tensor, _ expected: Tensor, _ name: String, sourceLocation: SourceLocation = #_sourceLocation
) {
    guard actual.dtype == expected.dtype, actual.shape == expected.shape else {
        Issue.record(
            "\(name): \(actual.shape) \(actual.dtype), expected \(expected.shape) \(expected.dtype)",
            sourceLocation: sourceLocation)
        return
    }
    let (left, right) = (actual.bits, expected.bits)
    let different = left.indices.filter { left[$0] != right[$0] }
    guard let first = different.first else { return }
    Issue.record(
        """
        \(name): \(different.count) of \(left.count) elements differ in bits; the first is [\(first)], \
        \(String(left[first], radix: 16)) against \(String(right[first], radix: 16))
        """, sourceLocation: sourceLocation)
}

extension Tensor {
    /// The bit patterns of the elements, row by row.
    public var bits: [UInt32] {
        switch dtype {
        case .f32: array(of: Float.self).map(\.bitPattern)
        case .i32: array(of: Int32.self).map(UInt32.init(bitPattern:))
        case .bf16: array(of: UInt16.self).map(UInt32.init)
        case .u8: array(of: UInt8.self).map(UInt32.init)
        }
    }

    /// The elements of a floating tensor in double precision, row by row.
    public var doubles: [Double] { floats().map(Double.init) }
}
