import ApusKernels
public import ApusTensor

/// What a device's products and memory reach, measured by its own clock: the ceilings that figures are a share of.
public enum CUDASpeed {
    /// FLOP/s of a large product of random numbers, the median of several.
    public static func product(_ dtype: DType, on backend: CUDABackend, rounds: Int = 9) throws -> Double {
        let n = 8192
        let a = try random(Shape(n, n), dtype, backend)
        let b = try random(Shape(n, n), dtype, backend)
        let c = try backend.empty(Shape(n, n), dtype, .workspace)
        let seconds = try medianTime(rounds, on: backend) { try backend.matMul(a.matrix, b.transpose, into: c) }
        return 2 * Double(n) * Double(n) * Double(n) / seconds
    }

    /// Bytes a second of a copy larger than any cache, read and written, the median of several.
    public static func memory(on backend: CUDABackend, rounds: Int = 9) throws -> Double {
        let bytes = 1 << 30
        let source = try random(Shape(bytes / 4), .f32, backend)
        let target = try backend.empty(source.shape, .f32, .workspace)
        let seconds = try medianTime(rounds, on: backend) { try backend.scale(source, by: 2, into: target) }
        return 2 * Double(bytes) / seconds
    }

    private static func random(_ shape: Shape, _ dtype: DType, _ backend: CUDABackend) throws -> Tensor {
        let result = try backend.empty(shape, dtype, .workspace)
        let stream = RandomStream(seed: 1, purpose: .initialization)
        try backend.fillRandom(result, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
        return result
    }

    /// The median of the device's seconds for `body`, after it has run once.
    public static func medianTime(
        _ rounds: Int, on backend: CUDABackend, _ body: () throws -> Void
    ) throws -> Double {
        try body()
        let times = try (0..<rounds).map { _ in
            let begin = try CUDAEvent(on: backend.queue, isTimed: true)
            try body()
            let end = try CUDAEvent(on: backend.queue, isTimed: true)
            try end.wait()
            return try end.seconds(since: begin)
        }
        return times.sorted()[rounds / 2]
    }
}
