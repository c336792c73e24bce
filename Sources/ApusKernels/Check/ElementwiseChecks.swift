import ApusTensor
import Glibc

extension OpCheck {
    private static let (rows, width) = (7, 33)

    static let elementwise: [[OpCheck]] = [
        make("fill") { probe in
            let x = try probe.draw(rows, width)
            try probe.backend.fill(x.tensor, with: 2.5)
            probe.expect(x.tensor, x.values.map { _ in 2.5 })
        },
        make("copy of strided columns") { probe in
            let (x, y) = (try probe.draw(rows, width), try probe.empty(rows, 8))
            try probe.backend.copy(x.tensor.columns(4..<12), into: y)
            probe.expect(y, (0..<rows * 8).map { x.values[$0 / 8 * width + 4 + $0 % 8] })
        },
        make("add") { probe in
            let (x, z, y) = (try probe.draw(rows, width), try probe.draw(rows, width), try probe.empty(rows, width))
            try probe.backend.add(x.tensor, z.tensor, into: y)
            probe.expect(y, zip(x.values, z.values).map { $0 + $1 })
        },
        make("add scaled") { probe in
            let (x, y) = (try probe.draw(rows, width), try probe.draw(rows, width, dtype: .f32))
            try probe.backend.addScaled(x.tensor, factor: 0.75, into: y.tensor)
            probe.expect(y.tensor, zip(x.values, y.values).map { 0.75 * $0 + $1 })
        },
        make("scale") { probe in
            let (x, y) = (try probe.draw(rows, width), try probe.empty(rows, width))
            try probe.backend.scale(x.tensor, by: 0.3, into: y)
            probe.expect(y, x.values.map { Double(Float(0.3)) * $0 })
        },
        make("multiply") { probe in
            let (x, z, y) = (try probe.draw(rows, width), try probe.draw(rows, width), try probe.empty(rows, width))
            try probe.backend.multiply(x.tensor, z.tensor, into: y)
            probe.expect(y, zip(x.values, z.values).map { $0 * $1 })
        },
        make("convert", [.bf16]) { probe in
            let x = try probe.draw(rows, width, dtype: .f32)
            let (half, back) = (try probe.empty(rows, width), try probe.empty(rows, width, dtype: .f32))
            try probe.backend.convert(x.tensor, into: half)
            try probe.backend.convert(half, into: back)
            // Rounding to nearest is exact, so it is held to equality.
            let rounded = try probe.put(x.values, Shape(rows, width), .bf16).values.map { Float($0) }
            let (found, returned) = (probe.floats(half), probe.floats(back))
            probe.expect(found == rounded && returned == rounded)
        },
        make("add bias") { probe in
            let (x, bias, y) = (try probe.draw(rows, width), try probe.draw(width), try probe.empty(rows, width))
            try probe.backend.addBias(x.tensor, bias: bias.tensor, into: y)
            probe.expect(y, x.values.enumerated().map { $1 + bias.values[$0 % width] })
        },
        make("clamp") { probe in
            let (x, y) = (try probe.draw(rows, width), try probe.empty(rows, width))
            try probe.backend.clamp(x.tensor, limit: 0.5, into: y)
            probe.expect(y, x.values.map { min(max($0, -0.5), 0.5) })
        },
        make("clamp backward") { probe in
            let (x, dy, dx) = (try probe.draw(rows, width), try probe.draw(rows, width), try probe.empty(rows, width))
            try probe.backend.clampBackward(dy.tensor, x: x.tensor, limit: 0.5, into: dx)
            probe.expect(dx, zip(x.values, dy.values).map { abs($0) < 0.5 ? $1 : 0 })
        },
        make("random fill", [.f32]) { probe in
            let stream = RandomStream(seed: 7, purpose: .initialization, layer: 3, step: 4)
            // Not at the start of a block of four words, nor at its end.
            let (first, count) = (6, 4001)
            for (draw, value) in distributions {
                let x = try probe.empty(count)
                try probe.backend.fillRandom(x, draw, stream: stream, first: UInt64(first))
                probe.expect(x, (0..<count).map { value(stream, UInt64(first + $0)) })
            }
        },
    ]

    static let reduction: [[OpCheck]] = [
        make("column sums") { probe in
            let (x, sums) = (try probe.draw(rows, width), try probe.draw(width, dtype: .f32))
            try probe.backend.addColumnSums(x.tensor, into: sums.tensor)
            probe.expect(
                sums.tensor,
                (0..<width).map { c in (0..<rows).reduce(sums.values[c]) { $0 + x.values[$1 * width + c] } })
        },
        make("sum", [.f32]) { probe in
            let (x, result) = (try probe.draw(rows, width, mean: 1), try probe.empty(1))
            try probe.backend.sum(x.tensor, factor: 0.5, into: result)
            probe.expect(result, [0.5 * x.values.reduce(0, +)])
        },
        make("count of non-finite") { probe in
            var values = Array(repeating: 1.0, count: rows * width)
            (values[3], values[40], values[rows * width - 1]) = (.nan, .infinity, -.infinity)
            let x = try probe.put(values, Shape(rows, width), probe.dtype)
            probe.expect(try probe.backend.countNonFinite(x.tensor) == 3)
        },
    ]

    /// Distributions, and what each makes of a stream at an index.
    private static let distributions: [(RandomDistribution, @Sendable (RandomStream, UInt64) -> Double)] = [
        (.uniform(low: -2, high: 3), { -2 + 5 * uniform($0, $1) }),
        (
            .normal(mean: 1, deviation: 2),
            { stream, index in
                // Box and Muller: an even place and the odd one behind it share a radius and a turn.
                let radius = (-2 * log(uniform(stream, index & ~1))).squareRoot()
                let turn = 2 * Double.pi * uniform(stream, index | 1)
                return 1 + 2 * radius * (index & 1 == 0 ? cos(turn) : sin(turn))
            }
        ),
        (.gumbel, { -log(-log(uniform($0, $1))) }),
    ]

    /// The draw from (0, 1) that belongs to an index: the centre of one of 2^23 equal intervals.
    static func uniform(_ stream: RandomStream, _ index: UInt64) -> Double {
        (Double(stream.word(at: index) >> 9) + 0.5) * 0x1p-23
    }
}
