import ApusTensor
import Glibc

// Shape letters: R rows, F width, T tokens, H heads.

extension OpCheck {
    static let activation: [[OpCheck]] =
        Activation.allCases.map(activationForward) + Activation.allCases.map(activationBackward)

    private static func activationForward(_ kind: Activation) -> [OpCheck] {
        make(kind.rawValue) { probe in
            for (r, f) in [(1, 1), (9, 33), (40, 128)] {
                let h = try probe.draw(r, kind.inputsPerOutput * f, spread: 2)
                let a = try probe.empty(r, f)
                try probe.backend.activate(kind, h.tensor, into: a)
                probe.expect(a, values(kind, h.values, f))
            }
        }
    }

    private static func activationBackward(_ kind: Activation) -> [OpCheck] {
        make("\(kind.rawValue) backward") { probe in
            let (r, f) = (9, 33)
            let h = try probe.draw(r, kind.inputsPerOutput * f, spread: 2)
            let da = try probe.draw(r, f)
            let (dh, a) = (try probe.empty(r, kind.inputsPerOutput * f), try probe.empty(r, f))
            try probe.backend.activateBackward(kind, da.tensor, h: h.tensor, into: dh, recomputed: a)
            // Each input moves one output, so one difference at a time is enough.
            let gradient = h.values.indices.map { place in
                let row = place / (kind.inputsPerOutput * f)
                let inputs = Array(h.values[row * kind.inputsPerOutput * f..<(row + 1) * kind.inputsPerOutput * f])
                let column = place % (kind.inputsPerOutput * f)
                let slope = numericGradient([inputs[column]]) { moved in
                    var inputs = inputs
                    inputs[column] = moved[0]
                    return values(kind, inputs, f)[column % f]
                }
                return da.values[row * f + column % f] * slope[0]
            }
            probe.expect(dh, gradient)
            probe.expect(a, values(kind, h.values, f))
        }
    }

    /// Rows of `[gate | up]`, or of plain inputs, to rows F wide.
    private static func values(_ kind: Activation, _ h: [Double], _ f: Int) -> [Double] {
        switch kind {
        case .swiglu:
            (0..<h.count / 2).map { place in
                let (row, column) = (place / f * 2 * f, place % f)
                let gate = h[row + column]
                return gate / (1 + exp(-gate)) * h[row + f + column]
            }
        case .gelu: h.map { 0.5 * $0 * (1 + erf($0 / 2.0.squareRoot())) }
        case .geluTanh: h.map { 0.5 * $0 * (1 + tanh((2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) }
        case .relu: h.map { max($0, 0) }
        }
    }

    static let rotary: [[OpCheck]] = [
        make("rotary table", [.f32]) { probe in
            let table = try probe.backend.rotaryTable(positions: 50, headWidth: 16, theta: 500)
            let angles = (0..<50 * 8).map { place -> Double in
                let (position, pair) = (place / 8, place % 8)
                return Double(position) * pow(500.0, -Double(pair) / 8)
            }
            probe.expect(table.cosines, angles.map { cos($0) })
            probe.expect(table.sines, angles.map { sin($0) })
        },
        make("rotary") { probe in try checkRotation(&probe, inverse: false) },
        make("rotary backward") { probe in try checkRotation(&probe, inverse: true) },
    ]

    private static func checkRotation(_ probe: inout CheckProbe, inverse: Bool) throws {
        for (t, h, d) in [(1, 1, 2), (7, 3, 16), (5, 2, 64)] {
            let x = try probe.draw(t, h, d)
            let places = (0..<t).map { _ in probe.integer(below: 50) }
            let y = try probe.empty(t, h, d)
            let table = try probe.backend.rotaryTable(positions: 50, headWidth: d, theta: 10_000)
            try probe.backend.rotate(x.tensor, positions: probe.put(places, t), table: table, inverse: inverse, into: y)
            var expected = x.values
            for head in 0..<t * h {
                for i in 0..<d / 2 {
                    let angle = Double(places[head / h]) * pow(10_000, -2 * Double(i) / Double(d)) * (inverse ? -1 : 1)
                    let (a, b) = (x.values[head * d + i], x.values[head * d + d / 2 + i])
                    expected[head * d + i] = a * cos(angle) - b * sin(angle)
                    expected[head * d + d / 2 + i] = b * cos(angle) + a * sin(angle)
                }
            }
            probe.expect(y, expected)
        }
    }
}
