import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, C channels, W taps.

/// The gated short convolution against numbers worked out by hand, and against its definition over a table of sizes.
@Suite struct ShortConvolutionTests {
    let backend = CPUBackend(threadCount: 2)

    /// Rows [b | c | v] of one channel: a sequence of three tokens and one of two, taps 2, 3 and 5.
    @Test func `sums earlier tokens of the same sequence, by hand`() throws {
        let x = try backend.allocator.floating([1, 1, 1, 2, 1, 3, -1, 2, 2, 1, 1, 7, 3, 2, 1], Shape(5, 3), .f32)
        let taps = try backend.allocator.floating([2, 3, 5], Shape(3, 1), .f32)
        let positions = try backend.allocator.integers([0, 1, 2, 0, 1])
        let y = try backend.sentinel(5, 1)
        try backend.shortConvolution(x, taps: taps, positions: positions, into: y)
        // c v is 1, 3, 4 | 7, 2: then 2; 2 (2 3 + 3); -(2 4 + 3 3 + 5); 14; 3 (2 2 + 3 7).
        #expect(y.floats() == [2, 18, -22, 14, 75])

        let dy = try backend.allocator.floating([1, 1, 1, 1, 1], Shape(5, 1), .f32)
        let dx = try backend.sentinel(5, 3)
        let sums = try backend.allocator.floating([100, 0, 0], Shape(3, 1), .f32)
        try backend.shortConvolutionBackward(
            dy, x: x, taps: taps, positions: positions, into: dx, tapGradient: sums)
        // b is 1, 2, -1 | 1, 3. The sums before the gate: 2, 9, 22, 14, 25. A token's c v reaches the tokens behind it:
        // 2 1 + 3 2 - 5, 2 2 - 3, -2 | 2 + 3 3, 2 3.
        #expect(dx.floats() == [2, 3, 3, 9, 3, 1, 22, -4, -4, 14, 77, 11, 25, 6, 12])
        // 1 + 2 3 - 4 + 7 + 3 2; 2 1 - 3 + 3 7; -1.
        #expect(sums.floats() == [116, 20, -1])
    }

    private func inputs(_ lengths: [Int], _ c: Int, _ w: Int, _ type: DType) throws -> (Tensor, Tensor, Tensor, Tensor)
    {
        let tokens = lengths.reduce(0, +)
        return (
            try backend.random(tokens, 3 * c, dtype: type, seed: 1, rowPadding: 3),
            try backend.random(w, c, dtype: type, seed: 2),
            try backend.allocator.integers(lengths.flatMap { Array(0..<$0) }),
            try backend.random(tokens, c, dtype: type, seed: 3)
        )
    }

    @Test(
        arguments: [([0], 3, 2), ([1], 1, 4), ([5, 1, 2], 15, 3), ([9, 4], 16, 4), ([300, 7], 17, 5), ([3], 33, 9)],
        floatingTypes)
    func `is its definition, forward and backward`(_ sizes: ([Int], Int, Int), _ type: DType) throws {
        let (lengths, c, w) = sizes
        let (x, taps, positions, dy) = try inputs(lengths, c, w, type)
        let tokens = lengths.reduce(0, +)
        let (rows, weights, slopes) = (x.doubles, taps.doubles, dy.doubles)
        let starts = lengths.indices.flatMap { index in
            Array(repeating: lengths[..<index].reduce(0, +), count: lengths[index])
        }
        var (y, dx, sums) = (
            [Double](repeating: 0, count: tokens * c), [Double](repeating: 0, count: tokens * 3 * c),
            [Double](repeating: 1, count: w * c)
        )
        for t in 0..<tokens {
            for channel in 0..<c {
                func at(_ part: Int, _ token: Int) -> Int { (token * 3 + part) * c + channel }
                let slope = slopes[t * c + channel]
                var sum = 0.0
                for j in 0..<w where t - j >= starts[t] {
                    let (tap, inner, value) = (weights[j * c + channel], rows[at(1, t - j)], rows[at(2, t - j)])
                    sum += tap * inner * value
                    dx[at(1, t - j)] += slope * rows[at(0, t)] * tap * value
                    dx[at(2, t - j)] += slope * rows[at(0, t)] * tap * inner
                    sums[j * c + channel] += slope * rows[at(0, t)] * inner * value
                }
                y[t * c + channel] = rows[at(0, t)] * sum
                dx[at(0, t)] = slope * sum
            }
        }
        let found = try backend.sentinel(tokens, c, dtype: type, rowPadding: 5)
        try backend.shortConvolution(x, taps: taps, positions: positions, into: found)
        expectClose(found, y, "y")
        let gradient = try backend.sentinel(tokens, 3 * c, dtype: type, rowPadding: 1)
        let tapGradient = try backend.allocator.floating(Array(repeating: 1, count: w * c), Shape(w, c), .f32)
        try backend.shortConvolutionBackward(
            dy, x: x, taps: taps, positions: positions, into: gradient, tapGradient: tapGradient)
        expectClose(gradient, dx, "dx")
        expectClose(tapGradient, sums, "taps")
        // Without weights that are trained the rest is the same.
        let alone = try backend.sentinel(tokens, 3 * c, dtype: type)
        try backend.shortConvolutionBackward(
            dy, x: x, taps: taps, positions: positions, into: alone, tapGradient: nil)
        #expect(alone.floats() == gradient.floats())
    }

    @Test func `changes no bit with the number of threads`() throws {
        let (x, taps, positions, dy) = try inputs([700, 400], 96, 4, .f32)
        try expectSameBitsForAnyThreadCount("short convolution") { backend in
            let y = try backend.sentinel(1100, 96)
            let (dx, sums) = (try backend.sentinel(1100, 288), try backend.sentinel(4, 96))
            try backend.shortConvolution(x, taps: taps, positions: positions, into: y)
            try backend.shortConvolutionBackward(
                dy, x: x, taps: taps, positions: positions, into: dx, tapGradient: sums)
            return [y, dx, sums]
        }
    }
}
