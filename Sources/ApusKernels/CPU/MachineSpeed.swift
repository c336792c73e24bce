public import ApusTensor

/// What this machine's products and memory reach, measured: the ceilings that figures are given as a share of.
public enum MachineSpeed {
    /// FLOP/s of a large product, the best of several.
    public static func product(_ dtype: DType, backend: any Backend, rounds: Int = 5) throws -> Double {
        let (m, n, k) = (768, 768, 768)
        let a = try backend.zeros(Shape(m, k), dtype, .workspace)
        let b = try backend.zeros(Shape(n, k), dtype, .workspace)
        let c = try backend.empty(Shape(m, n), .f32, .workspace)
        let seconds = try bestTime(rounds) { try backend.matMul(a.matrix, b.transpose, into: c) }
        return 2 * Double(m * n * k) / seconds
    }

    /// Bytes a second of a copy larger than any cache, read and written, the best of several.
    public static func memory(backend: any Backend, rounds: Int = 5) throws -> Double {
        let bytes = 256 << 20
        let source = try backend.zeros(Shape(bytes / 4), .f32, .workspace)
        let target = try backend.zeros(Shape(bytes / 4), .f32, .workspace)
        let seconds = try bestTime(rounds) { try backend.scale(source, by: 1, into: target) }
        return 2 * Double(bytes) / seconds
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
