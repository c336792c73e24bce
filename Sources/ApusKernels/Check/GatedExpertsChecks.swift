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
                        x.tensor, rows: nil, weights: w.tensor, offsets: offsets,
                        rowWeights: keeps ? weights.tensor : nil,
                        pre: keeps ? kept : nil, into: hidden)
                    probe.expect(
                        hidden, activated.enumerated().map { (keeps ? weights.values[$0 / f] : 1) * $1 })
                    if keeps { probe.expect(kept, pre) }
                }
            }
        },
        make("gated experts of picked rows") { probe in
            for (counts, f, d) in cases {
                let group = Groups(counts)
                let (x, w) = (try probe.draw(19, d), try probe.draw(counts.count, 2 * f, d, spread: 0.3))
                let weights = try probe.draw(group.rows, dtype: .f32)
                let offsets = try probe.put(group.offsets, counts.count + 1)
                let index = (0..<group.rows).map { _ in probe.integer(below: 19) }
                let rows = try probe.put(index, group.rows)
                let pre = group.expected(
                    2 * f, d, { x.values[index[$0] * d + $1] }, { w.values[($0 * 2 * f + $2) * d + $1] })
                let activated = (0..<group.rows * f).map { gated(pre, row: $0 / f, $0 % f, f) }
                for keeps in [true, false] {
                    let (kept, hidden) = (try probe.empty(group.rows, 2 * f), try probe.empty(group.rows, f))
                    try probe.backend.gatedExperts(
                        x.tensor, rows: rows, weights: w.tensor, offsets: offsets, rowWeights: weights.tensor,
                        pre: keeps ? kept : nil, into: hidden)
                    probe.expect(hidden, activated.enumerated().map { weights.values[$0 / f] * $1 })
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
        make("gated experts' input backward") { probe in
            // The last is wide enough for rows to be moved beside the products.
            for (counts, f, d) in cases + [([150, 0, 9], 704, 72)] {
                let (group, k) = (Groups(counts), 3)
                let tokens = group.rows / k + 2
                // Every row is some choice's; choices left over have no row.
                let slots = (0..<tokens * k).map { $0 < group.rows ? group.rows - 1 - $0 : -1 }.shuffled(&probe)
                let dpre = try probe.draw(group.rows, 2 * f)
                let (x, w) = (try probe.draw(tokens, d), try probe.draw(counts.count, 2 * f, d, spread: 0.3))
                let (offsets, slotToRow) = (
                    try probe.put(group.offsets, counts.count + 1), try probe.put(slots, tokens, k)
                )
                var tokenOfRow = Array(repeating: 0, count: group.rows)
                for (slot, row) in slots.enumerated() where row >= 0 { tokenOfRow[row] = slot / k }
                let drows = group.expected(
                    d, 2 * f, { dpre.values[$0 * 2 * f + $1] }, { w.values[($0 * 2 * f + $1) * d + $2] })
                var sums = Array(repeating: 0.0, count: tokens * d)
                for place in drows.indices { sums[tokenOfRow[place / d] * d + place % d] += drows[place] }
                let products = group.weightGradient(
                    2 * f, d, { dpre.values[$0 * 2 * f + $1] }, { x.values[tokenOfRow[$0] * d + $1] })
                for (adds, type) in zip([true, false], [probe.gradientTypes[0], probe.gradientTypes.last ?? .f32]) {
                    let gradient = try probe.draw(counts.count, 2 * f, d, dtype: type)
                    let dx = try probe.draw(tokens, d)
                    try probe.backend.gatedExpertsInputBackward(
                        dpre.tensor, x: x.tensor, slotToRow: slotToRow, choices: k, weights: w.tensor,
                        offsets: offsets, rows: probe.empty(group.rows, d), gradient: gradient.tensor, adds: adds,
                        into: dx.tensor, addsInput: adds)
                    probe.expect(gradient.tensor, adds ? zip(gradient.values, products).map { $0 + $1 } : products)
                    probe.expect(dx.tensor, adds ? zip(dx.values, sums).map { $0 + $1 } : sums)
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

extension [Int] {
    /// The same numbers in another order (Fisher-Yates).
    fileprivate func shuffled(_ probe: inout CheckProbe) -> [Int] {
        var result = self
        for place in result.indices.reversed() { result.swapAt(place, probe.integer(below: place + 1)) }
        return result
    }
}
