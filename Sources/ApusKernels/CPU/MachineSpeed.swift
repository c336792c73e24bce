public import ApusTensor
import CApusKernels

/// What this machine's arithmetic, products and memory reach, measured: the ceilings that figures are a share of.
///
/// Operands live outside the backend's account: measuring neither meets its limit nor moves its peaks.
public enum MachineSpeed {
    /// FLOP/s of multiply-adds on registers alone, on all threads of `pool` at once, the best of several: what no product
    /// can pass. For `bf16` the processor's own instruction, and where it has none the peak of `f32`.
    public static func peak(_ dtype: DType, pool: ThreadPool, rounds: Int = 5) -> Double {
        let type = dtype == .bf16 ? APUS_BF16 : APUS_F32
        // About 10 ms at a full vector of multiply-adds in each cycle of 3 GHz.
        let steps = 3_000_000
        var sink: Float = 0
        // The count is the same for every run of as many steps.
        let operations = apus_peak_run(type, steps, &sink)
        let seconds = bestTime(rounds) {
            pool.run(parts: pool.threadCount) { _, _ in
                var sink: Float = 0
                _ = apus_peak_run(type, steps, &sink)
            }
        }
        return operations * Double(pool.threadCount) / seconds
    }

    /// What no product of `backend` can pass: the peak of its threads, and for another device that of a large product.
    public static func peak(_ dtype: DType, backend: any Backend, rounds: Int = 5) throws -> Double {
        guard let backend = backend as? CPUBackend else { return try product(dtype, backend: backend, rounds: rounds) }
        return peak(dtype, pool: backend.pool, rounds: rounds)
    }

    /// FLOP/s of a large product, the best of several.
    public static func product(_ dtype: DType, backend: any Backend, rounds: Int = 5) throws -> Double {
        let size = backend is CPUBackend ? 768 : 8192
        let backend = ownMemory(backend)
        let a = try backend.empty(Shape(size, size), dtype, .workspace)
        let b = try backend.empty(Shape(size, size), dtype, .workspace)
        let c = try backend.empty(Shape(size, size), .f32, .workspace)
        // Zeros would let some devices run faster than real numbers do.
        for (part, operand) in [a, b].enumerated() {
            let stream = RandomStream(seed: UInt64(part), purpose: .initialization)
            try backend.fillRandom(operand, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
        }
        let seconds = try bestTime(rounds) {
            try backend.matMul(a.matrix, b.transpose, into: c)
            try wait(for: c, on: backend)
        }
        return 2 * Double(size * size * size) / seconds
    }

    /// Bytes a second of a copy larger than any cache, read and written, the best of several.
    public static func memory(backend: any Backend, rounds: Int = 5) throws -> Double {
        let backend = ownMemory(backend)
        let bytes = 256 << 20
        let source = try backend.zeros(Shape(bytes / 4), .f32, .workspace)
        let target = try backend.zeros(Shape(bytes / 4), .f32, .workspace)
        let seconds = try bestTime(rounds) {
            try backend.scale(source, by: 1, into: target)
            try wait(for: target, on: backend)
        }
        return 2 * Double(bytes) / seconds
    }

    /// Waits for a device by reading one element.
    private static func wait(for tensor: Tensor, on backend: any Backend) throws {
        _ = try backend.floats(tensor.reshaped(tensor.count)[0..<1])
    }

    /// The same threads and kernels with an allocator that is let go with the measurement; a device keeps its own.
    private static func ownMemory(_ backend: any Backend) -> any Backend {
        (backend as? CPUBackend).map { CPUBackend(sharingThreadsOf: $0) } ?? backend
    }

    private static func bestTime(_ rounds: Int, _ body: () throws -> Void) rethrows -> Double {
        let clock = ContinuousClock()
        var best = Double.infinity
        try body()
        for _ in 0..<rounds {
            let begin = clock.now
            try body()
            let elapsed = (clock.now - begin).components
            best = min(best, Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18)
        }
        return best
    }
}
