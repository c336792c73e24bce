import ApusTensor

// Shape letters: T rows, D width.

extension OpCheck {
    private static let sizes = [(1, 1), (3, 17), (37, 96), (5, 640)]
    private static let epsilon = 1e-5

    static let norm: [[OpCheck]] = [
        make("rms-norm") { probe in
            for (t, d) in sizes {
                let (x, w) = (try probe.draw(t, d), try probe.draw(d, mean: 1, spread: 0.2))
                let (y, rstd) = (try probe.empty(t, d), try probe.empty(t, dtype: .f32))
                try probe.backend.rmsNorm(x.tensor, weight: w.tensor, epsilon: Float(epsilon), into: y, rstd: rstd)
                probe.expect(y, rms(x.values, w.values))
            }
        },
        make("add + rms-norm") { probe in
            for (t, d) in sizes {
                let (x, r, w) = (try probe.draw(t, d), try probe.draw(t, d), try probe.draw(d, mean: 1, spread: 0.2))
                let (sum, y, rstd) = (try probe.empty(t, d), try probe.empty(t, d), try probe.empty(t, dtype: .f32))
                try probe.backend.addRMSNorm(
                    x.tensor, residual: r.tensor, weight: w.tensor, epsilon: Float(epsilon), sum: sum, into: y,
                    rstd: rstd)
                let expected = zip(x.values, r.values).map { $0 + $1 }
                probe.expect(sum, expected)
                probe.expect(y, rms(expected, w.values))
                let squares = (0..<t).map { row in expected[row * d..<(row + 1) * d].reduce(0) { $0 + $1 * $1 } }
                probe.expect(rstd, squares.map { 1 / ($0 / Double(d) + epsilon).squareRoot() })
            }
        },
        make("rms-norm backward") { probe in
            for (t, d) in [(1, 1), (3, 17), (7, 48)] {
                let (x, w, dy) = (try probe.draw(t, d), try probe.draw(d, mean: 1, spread: 0.2), try probe.draw(t, d))
                let (y, dx, rstd) = (try probe.empty(t, d), try probe.draw(t, d), try probe.empty(t, dtype: .f32))
                let dw = try probe.zeros(d)
                try probe.backend.rmsNorm(x.tensor, weight: w.tensor, epsilon: Float(epsilon), into: y, rstd: rstd)
                try probe.backend.rmsNormBackward(
                    dy.tensor, x: x.tensor, weight: w.tensor, rstd: rstd, into: dx.tensor, adds: true,
                    weightGradient: dw)
                let slope = numericGradient(x.values) { dot(dy.values, rms($0, w.values)) }
                // One number cannot change its own norm, so its gradient is noise: the sum with what was there decides.
                probe.expect(dx.tensor, zip(slope, dx.values).map { $0 + $1 })
                probe.expect(dw, numericGradient(w.values) { dot(dy.values, rms(x.values, $0)) })
            }
        },
        make("layer-norm") { probe in
            for (t, d) in [(3, 17), (37, 96)] {
                let (x, w, b) = (try probe.draw(t, d), try probe.draw(d, mean: 1, spread: 0.2), try probe.draw(d))
                let y = try probe.empty(t, d)
                try probe.backend.layerNorm(
                    x.tensor, weight: w.tensor, bias: b.tensor, epsilon: Float(epsilon), into: y, mean: nil, rstd: nil)
                probe.expect(y, layer(x.values, w.values, b.values))
                try probe.backend.layerNorm(
                    x.tensor, weight: w.tensor, bias: nil, epsilon: Float(epsilon), into: y, mean: nil, rstd: nil)
                probe.expect(y, layer(x.values, w.values, b.values.map { _ in 0 }))
            }
        },
        make("layer-norm backward") { probe in
            for (t, d) in [(3, 17), (7, 48)] {
                let (x, w, b) = (try probe.draw(t, d), try probe.draw(d, mean: 1, spread: 0.2), try probe.draw(d))
                let (dy, y, dx) = (try probe.draw(t, d), try probe.empty(t, d), try probe.empty(t, d))
                let (mean, rstd) = (try probe.empty(t, dtype: .f32), try probe.empty(t, dtype: .f32))
                let (dw, db) = (try probe.zeros(d), try probe.zeros(d))
                try probe.backend.layerNorm(
                    x.tensor, weight: w.tensor, bias: b.tensor, epsilon: Float(epsilon), into: y, mean: mean, rstd: rstd
                )
                try probe.backend.layerNormBackward(
                    dy.tensor, x: x.tensor, weight: w.tensor, mean: mean, rstd: rstd, into: dx, adds: false,
                    weightGradient: dw, biasGradient: db)
                probe.expect(dx, numericGradient(x.values) { dot(dy.values, layer($0, w.values, b.values)) })
                probe.expect(dw, numericGradient(w.values) { dot(dy.values, layer(x.values, $0, b.values)) })
                probe.expect(db, numericGradient(b.values) { dot(dy.values, layer(x.values, w.values, $0)) })
                // A bias moves nothing but its own gradient, so without one the others stay; they add to what was there.
                let (before, scale) = (try probe.draw(t, d), try probe.zeros(d))
                try probe.backend.layerNormBackward(
                    dy.tensor, x: x.tensor, weight: w.tensor, mean: mean, rstd: rstd, into: before.tensor, adds: true,
                    weightGradient: scale, biasGradient: nil)
                let slope = numericGradient(x.values) { dot(dy.values, layer($0, w.values, b.values)) }
                probe.expect(before.tensor, zip(slope, before.values).map { $0 + $1 })
                probe.expect(scale, numericGradient(w.values) { dot(dy.values, layer(x.values, $0, b.values)) })
            }
        },
    ]

    private static func rms(_ x: [Double], _ w: [Double]) -> [Double] {
        stride(from: 0, to: x.count, by: w.count).flatMap { begin in
            let row = x[begin..<begin + w.count]
            let mean = row.reduce(0) { $0 + $1 * $1 } / Double(w.count)
            return zip(row, w).map { $0 * $1 / (mean + epsilon).squareRoot() }
        }
    }

    private static func layer(_ x: [Double], _ w: [Double], _ b: [Double]) -> [Double] {
        stride(from: 0, to: x.count, by: w.count).flatMap { begin in
            let row = x[begin..<begin + w.count]
            let mean = row.reduce(0, +) / Double(w.count)
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(w.count)
            return zip(row, zip(w, b)).map { ($0 - mean) / (variance + epsilon).squareRoot() * $1.0 + $1.1 }
        }
    }
}
