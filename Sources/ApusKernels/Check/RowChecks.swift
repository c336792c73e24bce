import ApusTensor
import Glibc

// Shape letters: T tokens, K choices per token, R routed rows, D model width, V vocabulary.

extension OpCheck {
    static let routedRows: [[OpCheck]] = [
        make("gather rows") { probe in
            let (x, scale) = (try probe.draw(9, 33), try probe.draw(20, dtype: .f32))
            let index = (0..<20).map { $0 % 7 == 3 ? -1 : probe.integer(below: 9) }
            let y = try probe.empty(20, 33)
            try probe.backend.gatherRows(x.tensor, index: probe.put(index, 20), scale: scale.tensor, into: y)
            probe.expect(
                y,
                (0..<20 * 33).map { place in
                    let row = index[place / 33]
                    return row < 0 ? 0 : scale.values[place / 33] * x.values[row * 33 + place % 33]
                })
            try probe.backend.gatherRows(x.tensor, index: probe.put(index, 20), scale: nil, into: y)
            probe.expect(
                y, (0..<20 * 33).map { index[$0 / 33] < 0 ? 0 : x.values[index[$0 / 33] * 33 + $0 % 33] })
        },
        make("scatter rows") { probe in
            // Slots without a row, and rows without a slot, which keep what they hold.
            let (tokens, choices, width) = (7, 3, 40)
            let x = try probe.draw(tokens, width)
            let rows = try probe.draw(tokens * choices, width)
            let slots = (0..<tokens * choices).map { $0 % 5 == 2 ? -1 : ($0 * 8) % (tokens * choices) }
            try probe.backend.scatterRows(
                x.tensor, slotToRow: probe.put(slots, slots.count), choices: choices, into: rows.tensor)
            var expected = rows.values
            for (slot, row) in slots.enumerated() where row >= 0 {
                for i in 0..<width { expected[row * width + i] = x.values[slot / choices * width + i] }
            }
            probe.expect(rows.tensor, expected)
        },
        make("gather rows of one element", [.f32]) { probe in
            let x = try probe.draw(300, 1)
            let index = (0..<500).map { $0 % 7 == 3 ? -1 : probe.integer(below: 300) }
            let y = try probe.empty(500, 1)
            try probe.backend.gatherRows(x.tensor, index: probe.put(index, 500), scale: nil, into: y)
            probe.expect(y, index.map { $0 < 0 ? 0 : x.values[$0] })
        },
        make("combine rows") { probe in
            let input = try CombineInput(&probe)
            let y = try probe.draw(input.t, input.d)
            try probe.backend.combineRows(
                input.rows.tensor, slotToRow: probe.put(input.slots, input.slots.count), weights: input.weights.tensor,
                choices: input.k, into: y.tensor, adds: true)
            probe.expect(y.tensor, zip(input.expected(input.weights.values), y.values).map { $0 + $1 })
            try probe.backend.combineRows(
                input.rows.tensor, slotToRow: probe.put(input.slots, input.slots.count), weights: nil,
                choices: input.k, into: y.tensor, adds: false)
            probe.expect(y.tensor, input.expected(input.weights.values.map { _ in 1 }))
        },
        make("combine rows backward") { probe in
            let input = try CombineInput(&probe)
            let dy = try probe.draw(input.t, input.d)
            let drows = try probe.empty(input.slots.count, input.d)
            let dweights = try probe.empty(input.t, input.k, dtype: .f32)
            try probe.backend.fill(drows, with: 0)
            try probe.backend.combineRowsBackward(
                dy.tensor, rows: input.rows.tensor, slotToRow: probe.put(input.slots, input.slots.count),
                weights: input.weights.tensor, choices: input.k, drows: drows, dweights: dweights)
            var expected = Array(repeating: 0.0, count: input.slots.count * input.d)
            var slopes = input.weights.values.map { _ in 0.0 }
            for (slot, row) in input.slots.enumerated() where row >= 0 {
                for x in 0..<input.d {
                    let gradient = dy.values[slot / input.k * input.d + x]
                    expected[row * input.d + x] = input.weights.values[slot] * gradient
                    slopes[slot] += input.rows.values[row * input.d + x] * gradient
                }
            }
            probe.expect(drows, expected)
            probe.expect(dweights, slopes)
        },
        make("mix rows") { probe in
            let (t, d) = (9, 33)
            let (a, b, w) = (try probe.draw(t, d), try probe.draw(t, d), try probe.draw(t, 2, dtype: .f32))
            let y = try probe.empty(t, d)
            try probe.backend.mixRows(a.tensor, b.tensor, weights: w.tensor, into: y)
            let expected = (0..<t * d).map { place -> Double in
                let token = place / d
                return w.values[2 * token] * a.values[place] + w.values[2 * token + 1] * b.values[place]
            }
            probe.expect(y, expected)
        },
        make("mix rows backward") { probe in
            let (t, d) = (9, 33)
            let (a, b, dy) = (try probe.draw(t, d), try probe.draw(t, d), try probe.draw(t, d))
            let (w, dw) = (try probe.draw(t, 2, dtype: .f32), try probe.empty(t, 2, dtype: .f32))
            let (da, db) = (try probe.empty(t, d), try probe.empty(t, d))
            try probe.backend.mixRowsBackward(
                dy.tensor, a.tensor, b.tensor, weights: w.tensor, da: da, db: db, dweights: dw)
            probe.expect(da, dy.values.enumerated().map { w.values[$0 / d * 2] * $1 })
            probe.expect(db, dy.values.enumerated().map { w.values[$0 / d * 2 + 1] * $1 })
            let slopes = (0..<t).flatMap { token -> [Double] in
                let row = token * d..<(token + 1) * d
                return [a, b].map { dot(Array($0.values[row]), Array(dy.values[row])) }
            }
            probe.expect(dw, slopes)
        },
        make("embedding") { probe in
            let (table, ids) = (try probe.draw(11, 24), (0..<30).map { _ in probe.integer(below: 11) })
            let (y, tokens) = (try probe.empty(30, 24), try probe.put(ids, 30))
            try probe.backend.embed(tokens, table: table.tensor, into: y)
            probe.expect(y, (0..<30 * 24).map { table.values[ids[$0 / 24] * 24 + $0 % 24] })
        },
        make("embedding backward") { probe in
            let (dy, ids) = (try probe.draw(30, 24), (0..<30).map { _ in probe.integer(below: 11) })
            let gradient = try probe.draw(11, 24, dtype: .f32)
            try probe.backend.embedBackward(dy.tensor, tokens: probe.put(ids, 30), into: gradient.tensor)
            var expected = gradient.values
            for place in 0..<30 * 24 { expected[ids[place / 24] * 24 + place % 24] += dy.values[place] }
            probe.expect(gradient.tensor, expected)
        },
    ]

    static let loss: [[OpCheck]] = [
        make("cross-entropy") { probe in
            for v in [5, 257, 1000] {
                let (logits, targets) = (try probe.draw(6, v, spread: 3), [0, v - 1, -1, 3, 2, 4])
                let (loss, sums) = (try probe.empty(6, dtype: .f32), try probe.empty(6, dtype: .f32))
                let ids = try probe.put(targets, 6)
                try probe.backend.crossEntropy(logits.tensor, targets: ids, loss: loss, logSumExp: sums)
                let shares = softmax(logits.values, v)
                probe.expect(loss, targets.enumerated().map { $1 < 0 ? 0 : -log(shares[$0 * v + $1]) })
                // A token that does not count has no sum worth reading.
                let counted = (0..<6).filter { targets[$0] >= 0 }
                let found = probe.floats(sums)
                probe.expect(
                    counted.map { Double(found[$0]) },
                    counted.map { row in log((0..<v).reduce(0) { $0 + exp(logits.values[row * v + $1]) }) })
            }
        },
        make("cross-entropy backward") { probe in
            let (v, targets) = (257, [0, 256, -1, 3, 2, 4])
            let logits = try probe.draw(6, v, spread: 3)
            let (loss, sums) = (try probe.empty(6, dtype: .f32), try probe.empty(6, dtype: .f32))
            let (ids, gradient) = (try probe.put(targets, 6), try probe.empty(6, v))
            let scale = try probe.put([0.25], Shape(1), .f32)
            try probe.backend.crossEntropy(logits.tensor, targets: ids, loss: loss, logSumExp: sums)
            try probe.backend.crossEntropyBackward(
                logits.tensor, targets: ids, logSumExp: sums, scale: scale.tensor, into: gradient)
            let shares = softmax(logits.values, v)
            probe.expect(
                gradient,
                shares.indices.map { place in
                    let target = targets[place / v]
                    return target < 0 ? 0 : 0.25 * (shares[place] - (place % v == target ? 1 : 0))
                })
        },
    ]
}

/// Routed rows to be brought back to their tokens.
private struct CombineInput {
    let t = 9
    let k = 2
    let d = 40
    let rows: CheckOperand
    let weights: CheckOperand
    /// Row of each slot; -1 for a dropped one.
    let slots: [Int]

    init(_ probe: inout CheckProbe) throws {
        let count = t * k
        rows = try probe.draw(count, d)
        weights = try probe.draw(t, k, dtype: .f32)
        slots = (0..<count).map { $0 % 5 == 4 ? -1 : ($0 * 7 + 3) % count }
    }

    func expected(_ weights: [Double]) -> [Double] {
        (0..<t * d).map { place in
            (0..<k).reduce(0) { sum, choice in
                let slot = place / d * k + choice
                return slots[slot] < 0 ? sum : sum + weights[slot] * rows.values[slots[slot] * d + place % d]
            }
        }
    }
}
