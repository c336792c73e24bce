import ApusTensor
import Glibc

// Shape letters: R routed rows, E experts, D model width, F expert width.

extension OpCheck {
    /// Experts without rows, with one, with parts of a tile and more than one; widths of part of a tile and of several.
    private static let cases = [([3, 0, 40, 1], 72, 136), ([150, 0, 9], 328, 72), ([17], 33, 20)]

    static let gatedExperts: [[OpCheck]] = [
        make("gated experts") { probe in
            for (counts, f, d) in cases {
                let group = Groups(counts)
                let (x, w) = (try probe.draw(group.rows, d), try probe.draw(counts.count, 2 * f, d, spread: 0.3))
                let weights = try probe.draw(group.rows, dtype: .f32)
                let offsets = try probe.put(group.offsets, counts.count + 1)
                let pre = group.expected(2 * f, d, { x.values[$0 * d + $1] }, { w.values[($0 * 2 * f + $2) * d + $1] })
                let activated = (0..<group.rows * f).map { gated(pre, row: $0 / f, $0 % f, f) }
                for keeps in [true, false] {
                    let (kept, hidden) = (try probe.empty(group.rows, 2 * f), try probe.empty(group.rows, f))
                    try probe.backend.gatedExperts(
                        x.tensor, weights: w.tensor, offsets: offsets, rowWeights: keeps ? weights.tensor : nil,
                        pre: keeps ? kept : nil, into: hidden)
                    probe.expect(
                        hidden, activated.enumerated().map { (keeps ? weights.values[$0 / f] : 1) * $1 })
                    if keeps { probe.expect(kept, pre) }
                }
            }
        },
        make("gated experts backward") { probe in
            for (counts, f, d) in cases {
                let group = Groups(counts)
                let (dy, w) = (try probe.draw(group.rows, d), try probe.draw(counts.count, d, f, spread: 0.3))
                let pre = try probe.draw(group.rows, 2 * f)
                let weights = try probe.draw(group.rows, dtype: .f32)
                let offsets = try probe.put(group.offsets, counts.count + 1)
                let g = group.expected(f, d, { dy.values[$0 * d + $1] }, { w.values[($0 * d + $1) * f + $2] })
                for isWeighted in [true, false] {
                    let weight = { (row: Int) in isWeighted ? weights.values[row] : 1 }
                    let target = try probe.put(pre.values, pre.tensor.shape, probe.dtype).tensor
                    let hidden = try probe.empty(group.rows, f)
                    let slopes = try probe.empty(group.rows, dtype: .f32)
                    try probe.backend.gatedExpertsBackward(
                        dy.tensor, weights: w.tensor, offsets: offsets, rowWeights: isWeighted ? weights.tensor : nil,
                        pre: target, hidden: hidden, weightGradients: slopes)
                    probe.expect(
                        target,
                        (0..<group.rows * 2 * f).map { place in
                            let (row, i) = (place / (2 * f), place % (2 * f))
                            return weight(row) * g[row * f + i % f] * gatedSlope(pre.values, row: row, i, f)
                        })
                    let activated = (0..<group.rows * f).map { gated(pre.values, row: $0 / f, $0 % f, f) }
                    probe.expect(hidden, activated.enumerated().map { weight($0 / f) * $1 })
                    probe.expect(
                        slopes,
                        (0..<group.rows).map { row in
                            (row * f..<(row + 1) * f).reduce(0) { $0 + g[$1] * activated[$1] }
                        })
                }
            }
        },
    ]

    /// Element `i` of what a row's gate and up come to.
    private static func gated(_ pre: [Double], row: Int, _ i: Int, _ f: Int) -> Double {
        let gate = pre[row * 2 * f + i]
        return gate / (1 + exp(-gate)) * pre[row * 2 * f + f + i]
    }

    /// Its derivative by element `i` of gate and up, by central difference.
    private static func gatedSlope(_ pre: [Double], row: Int, _ i: Int, _ f: Int) -> Double {
        let step = 1e-5
        var pair = [pre[row * 2 * f + i % f], pre[row * 2 * f + f + i % f]]
        pair[i / f] += step
        let above = gated(pair, row: 0, 0, 1)
        pair[i / f] -= 2 * step
        return (above - gated(pair, row: 0, 0, 1)) / (2 * step)
    }
}
