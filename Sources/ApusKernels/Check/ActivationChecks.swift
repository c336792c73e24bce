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
        make("rotary") { probe in try checkRotation(&probe, .halves, inverse: false) },
        make("rotary backward") { probe in try checkRotation(&probe, .halves, inverse: true) },
        make("rotary of neighbours") { probe in try checkRotation(&probe, .neighbours, inverse: false) },
        make("rotary of neighbours backward") { probe in try checkRotation(&probe, .neighbours, inverse: true) },
        make("rotary of one head for all") { probe in
            let (t, h, r) = (5, 3, 12)
            let (x, y) = (try probe.draw(t, 1, r), try probe.draw(t, h, r + 6))
            let places = (0..<t).map { _ in probe.integer(below: 50) }
            let table = try probe.backend.rotaryTable(positions: 50, headWidth: r, theta: 10_000)
            try probe.backend.rotate(
                x.tensor, positions: probe.put(places, t), table: table, inverse: false, into: y.tensor)
            var expected = y.values
            for head in 0..<t * h {
                let part = turned(x.values[head / h * r..<(head / h + 1) * r], at: places[head / h], .halves, sign: 1)
                expected.replaceSubrange(head * (r + 6) + 6..<(head + 1) * (r + 6), with: part)
            }
            probe.expect(y.tensor, expected)
        },
    ]

    /// What stands before the turned end of a head must stay, so `y` begins as what is expected there.
    private static func checkRotation(_ probe: inout CheckProbe, _ pairing: RotaryPairing, inverse: Bool) throws {
        for (t, h, d, r) in [(1, 1, 2, 2), (7, 3, 16, 16), (5, 2, 64, 64), (4, 3, 22, 12)] {
            let (x, y) = (try probe.draw(t, h, d), try probe.draw(t, h, d))
            let places = (0..<t).map { _ in probe.integer(below: 50) }
            let table = try probe.backend.rotaryTable(positions: 50, headWidth: r, theta: 10_000).pairing(pairing)
            try probe.backend.rotate(
                x.tensor, positions: probe.put(places, t), table: table, inverse: inverse, into: y.tensor)
            var expected = y.values
            for head in 0..<t * h {
                let end = head * d + d - r..<(head + 1) * d
                expected.replaceSubrange(
                    end, with: turned(x.values[end], at: places[head / h], pairing, sign: inverse ? -1 : 1))
            }
            probe.expect(y.tensor, expected)
        }
    }

    /// `part` of a head, turned by the angles of a position, theta 10,000.
    private static func turned(
        _ part: ArraySlice<Double>, at position: Int, _ pairing: RotaryPairing, sign: Double
    ) -> [Double] {
        let values = Array(part)
        var result = values
        for i in 0..<values.count / 2 {
            let angle = Double(position) * pow(10_000, -2 * Double(i) / Double(values.count)) * sign
            let (first, second) = pairing == .halves ? (i, i + values.count / 2) : (2 * i, 2 * i + 1)
            result[first] = values[first] * cos(angle) - values[second] * sin(angle)
            result[second] = values[second] * cos(angle) + values[first] * sin(angle)
        }
        return result
    }
}
