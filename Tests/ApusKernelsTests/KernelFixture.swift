import ApusKernels
import ApusTensor
import ApusTestSupport
import CApusKernels
import Testing

/// Sizes before, on and behind the edges of vectors, register tiles and cache blocks.
let oddSizes = [1, 3, 16, 17, 100, 257]

/// The types that activations and weights may have.
let floatingTypes: [DType] = [.f32, .bf16]

/// The instruction sets that this machine has, lowest first.
let availableLevels: [UInt32] = (0...apus_cpu_current_level().rawValue).map { $0 }

/// Whether oneDNN loads on this machine.
let hasOneDNN = apus_onednn_available() != 0

extension CPUBackend {
    /// A floating tensor of uniform draws.
    func random(
        _ dimensions: Int..., dtype: DType = .f32, seed: UInt64, scale: Float = 1, rowPadding: Int = 0
    ) throws -> Tensor {
        try allocator.random(Shape(dimensions), dtype, seed: seed, scale: scale, rowPadding: rowPadding)
    }

    /// A tensor whose every element is far from any result, to show what an op leaves alone or fails to write.
    func sentinel(_ dimensions: Int..., dtype: DType = .f32, rowPadding: Int = 0) throws -> Tensor {
        let shape = Shape(dimensions)
        return try allocator.floating(
            Array(repeating: 1024, count: shape.count), shape, dtype, rowPadding: rowPadding)
    }

    /// A dense copy.
    func duplicate(_ tensor: Tensor) throws -> Tensor {
        let result = try empty(tensor.shape, tensor.dtype)
        try copy(tensor, into: result)
        return result
    }
}

/// Runs `body` on pools of one, two and three threads and expects the same bits from all.
func expectSameBitsForAnyThreadCount(
    _ name: String, batchInvariant: Bool = false, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: (CPUBackend) throws -> [Tensor]
) throws {
    let expected = try body(CPUBackend(threadCount: 1, batchInvariant: batchInvariant))
    for threads in [2, 3] {
        let actual = try body(CPUBackend(threadCount: threads, batchInvariant: batchInvariant))
        for (index, pair) in zip(actual, expected).enumerated() {
            expectSameBits(
                pair.0, pair.1, "\(name), output \(index), \(threads) threads against one",
                sourceLocation: sourceLocation)
        }
    }
}

/// The derivative of a smooth function in double precision, to about ten digits.
func derivative(at x: Double, _ function: (Double) -> Double) -> Double {
    let step = 1e-3
    let near = function(x + step) - function(x - step)
    let far = function(x + 2 * step) - function(x - 2 * step)
    return (8 * near - far) / (12 * step)
}
