import ApusTensor
import Glibc

/// A tensor on the backend under check, and its elements as they are after rounding to its type.
struct CheckOperand {
    let tensor: Tensor
    let values: [Double]
}

/// What a check works with: the backend, inputs drawn the same way every time, and the largest error so far.
struct CheckProbe {
    let backend: any Backend
    /// The type of the activations.
    let dtype: DType
    /// The types that weights' gradients may have.
    var gradientTypes: [DType] { dtype == .f32 ? [.f32] : [.f32, dtype] }
    /// The largest relative error so far.
    private(set) var error = 0.0
    /// Why a result could not be read.
    private(set) var failure: (any Error)?
    private var state: UInt64 = 0x9e37_79b9_7f4a_7c15

    init(backend: any Backend, dtype: DType) {
        self.backend = backend
        self.dtype = dtype
    }

    /// A number from 0 up to 1 (SplitMix64).
    mutating func uniform() -> Double {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return Double((z ^ (z >> 31)) >> 11) / 0x1p53
    }

    /// A whole number below `bound`.
    mutating func integer(below bound: Int) -> Int { min(Int(uniform() * Double(bound)), bound - 1) }

    /// A tensor of numbers around `mean`, of the activations' type unless told otherwise.
    mutating func draw(
        _ dimensions: Int..., mean: Double = 0, spread: Double = 1, dtype: DType? = nil
    ) throws -> CheckOperand {
        let shape = Shape(dimensions)
        let values = (0..<shape.count).map { _ in
            // The sum of three uniform numbers: bell-shaped, and bounded.
            mean + spread * 2 * (uniform() + uniform() + uniform() - 1.5)
        }
        return try put(values, shape, dtype ?? self.dtype)
    }

    /// A tensor of the given numbers, rounded to its type.
    func put(_ values: [Double], _ shape: Shape, _ dtype: DType) throws -> CheckOperand {
        if dtype == .bf16 {
            let bits = values.map(roundedToBF16)
            let tensor = try backend.tensor(bits, shape, .workspace)
            return CheckOperand(tensor: tensor, values: bits.map { Double(Float(bitPattern: UInt32($0) << 16)) })
        }
        let floats = values.map { Float($0) }
        return CheckOperand(
            tensor: try backend.tensor(floats, shape, .workspace), values: floats.map { Double($0) })
    }

    /// A tensor of whole numbers.
    func put(_ values: [Int], _ dimensions: Int...) throws -> Tensor {
        try backend.tensor(values.map { Int32($0) }, Shape(dimensions), .workspace)
    }

    /// A tensor for an op to write, of the activations' type unless told otherwise.
    ///
    /// It holds what no result is, not a number or a far integer, so that an element that an op leaves unwritten is seen.
    func empty(_ dimensions: Int..., dtype: DType? = nil) throws -> Tensor {
        let tensor = try backend.empty(Shape(dimensions), dtype ?? self.dtype, .workspace)
        let byte: UInt8 = tensor.dtype.isFloating ? 0xff : 0xa5
        let bytes = Array(repeating: byte, count: tensor.dtype.byteCount(elements: tensor.count))
        try bytes.withUnsafeBytes { try backend.upload($0, into: tensor) }
        return tensor
    }

    /// A tensor of zeros, `f32`.
    func zeros(_ dimensions: Int...) throws -> Tensor { try backend.zeros(Shape(dimensions), .f32, .workspace) }

    /// Holds a result against what it should be: the norm of the difference over the norm of the expected values.
    mutating func expect(_ tensor: Tensor, _ expected: [Double]) {
        expect(floats(tensor).map { Double($0) }, expected)
    }

    mutating func expect(_ found: [Double], _ expected: [Double]) {
        expect(found.count == expected.count)
        var (difference, norm) = (0.0, 0.0)
        for (a, b) in zip(found, expected) {
            difference += (a - b) * (a - b)
            norm += b * b
        }
        let relative = (norm == 0 ? difference : difference / norm).squareRoot()
        error = relative.isFinite ? max(error, relative) : .infinity
    }

    /// Whole numbers must be equal.
    mutating func expect(_ tensor: Tensor, equals expected: [Int]) {
        if attempt({ try $0.array(tensor, of: Int32.self) })?.map({ Int($0) }) != expected { error = .infinity }
    }

    mutating func expect(_ condition: Bool) {
        if !condition { error = .infinity }
    }

    /// The elements of a result, once the device has them; not numbers when it fails.
    mutating func floats(_ tensor: Tensor) -> [Float] {
        attempt { try $0.floats(tensor) } ?? Array(repeating: .nan, count: tensor.count)
    }

    private mutating func attempt<Result>(_ body: (any Backend) throws -> Result) -> Result? {
        do {
            return try body(backend)
        } catch {
            failure = failure ?? error
            return nil
        }
    }
}

/// The bits of the `bf16` nearest to a number, ties to even.
private func roundedToBF16(_ value: Double) -> UInt16 {
    let bits = Float(value).bitPattern
    return UInt16((bits + 0x7fff + (bits >> 16 & 1)) >> 16)
}

/// The gradient of `value` at `x` by central differences: in double precision good to nine digits.
func numericGradient(_ x: [Double], _ value: ([Double]) -> Double) -> [Double] {
    var x = x
    return x.indices.map { index in
        let old = x[index]
        let step = 1e-5 * max(1, abs(old))
        x[index] = old + step
        let above = value(x)
        x[index] = old - step
        let below = value(x)
        x[index] = old
        return (above - below) / (2 * step)
    }
}

/// The sum of products.
func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
