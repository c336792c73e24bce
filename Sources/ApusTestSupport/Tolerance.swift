public import ApusTensor

/// How far a kernel's result may be from its definition: the norm of the difference over the norm of the result.
public enum Tolerance {
    /// The project's table: 1e-5 for `f32`, 1e-2 for `bf16`.
    public static func relativeNorm(_ dtype: DType) -> Double {
        switch dtype {
        case .f32: 1e-5
        case .bf16: 1e-2
        case .i32, .u8: 0
        }
    }

    /// For derivatives by differences of `f32` losses: what rounding leaves at the default step of ``GradientCheck``.
    public static let finiteDifference = 2e-3
}

/// The norm of `actual - expected` over the norm of `expected`, in double precision; 0 when both are empty.
///
/// A NaN on either side makes the result infinite, so that no comparison with a bound passes.
public func relativeError(_ actual: [Float], _ expected: [Double]) -> Double {
    precondition(actual.count == expected.count, "\(actual.count) values against \(expected.count)")
    var difference = 0.0
    var norm = 0.0
    for (value, reference) in zip(actual, expected) {
        let distance = Double(value) - reference
        difference += distance * distance
        norm += reference * reference
    }
    guard difference.isFinite, norm.isFinite else { return .infinity }
    // Against a result of zeros only the absolute size of the difference says anything.
    return (difference / (norm > 0 ? norm : 1)).squareRoot()
}

/// The same for a reference in single precision.
public func relativeError(_ actual: [Float], _ expected: [Float]) -> Double {
    relativeError(actual, expected.map(Double.init))
}
