import ApusTensor
import Glibc

// Shape letters: T tokens, E experts, K choices per token.

extension OpCheck {
    static let router: [[OpCheck]] = [
        make("softmax", [.f32]) { probe in
            for (t, e) in [(1, 1), (9, 8), (5, 67)] {
                let (x, y) = (try probe.draw(t, e, spread: 3), try probe.empty(t, e))
                try probe.backend.softmax(x.tensor, into: y)
                probe.expect(y, softmax(x.values, e))
            }
        },
        make("softmax backward", [.f32]) { probe in
            let (t, e) = (4, 9)
            let (x, dy) = (try probe.draw(t, e), try probe.draw(t, e))
            let (y, dx) = (try probe.empty(t, e), try probe.empty(t, e))
            try probe.backend.softmax(x.tensor, into: y)
            try probe.backend.softmaxBackward(dy.tensor, y: y, into: dx)
            probe.expect(dx, numericGradient(x.values) { dot(dy.values, softmax($0, e)) })
        },
        make("sigmoid", [.f32]) { probe in
            let x = try probe.draw(7, 13, spread: 3)
            let y = try probe.empty(7, 13)
            try probe.backend.sigmoid(x.tensor, into: y)
            probe.expect(y, x.values.map { 1 / (1 + exp(-$0)) })
        },
        make("sigmoid backward", [.f32]) { probe in
            let (x, dy) = (try probe.draw(7, 13), try probe.draw(7, 13))
            let (y, dx) = (try probe.empty(7, 13), try probe.empty(7, 13))
            try probe.backend.sigmoid(x.tensor, into: y)
            try probe.backend.sigmoidBackward(dy.tensor, y: y, into: dx)
            probe.expect(dx, zip(x.values, dy.values).map { $1 * exp(-$0) / ((1 + exp(-$0)) * (1 + exp(-$0))) })
        },
        make("log-sum-exp", [.f32]) { probe in
            let (t, e) = (6, 33)
            let (x, result) = (try probe.draw(t, e, spread: 3), try probe.empty(t))
            try probe.backend.logSumExp(x.tensor, into: result)
            probe.expect(result, (0..<t).map { row in log((0..<e).reduce(0) { $0 + exp(x.values[row * e + $1]) }) })
        },
        make("top-k", [.f32]) { probe in
            for (t, e, k) in [(1, 1, 1), (9, 8, 2), (5, 64, 8), (3, 5, 5)] {
                let (scores, bias) = (try probe.draw(t, e), try probe.draw(e, spread: 0.3))
                let (ids, values) = (try probe.empty(t, k, dtype: .i32), try probe.empty(t, k))
                for isBiased in [false, true] {
                    try probe.backend.topK(scores.tensor, bias: isBiased ? bias.tensor : nil, ids: ids, values: values)
                    let expected = (0..<t).flatMap { row in
                        let rank = { (expert: Int) in
                            Float(scores.values[row * e + expert]) + (isBiased ? Float(bias.values[expert]) : 0)
                        }
                        return (0..<e).sorted { rank($0) != rank($1) ? rank($0) > rank($1) : $0 < $1 }.prefix(k)
                    }
                    probe.expect(ids, equals: expected)
                    probe.expect(values, expected.enumerated().map { scores.values[$0.offset / k * e + $0.element] })
                }
            }
        },
        make("sort by expert", [.f32]) { probe in
            // One chunk of a device's sort, several, and more than a warp has lanes; experts that get nobody, and choices
            // that are dropped.
            for (t, e, k) in [(40, 6, 2), (1500, 5, 3), (900, 300, 4), (3, 1, 1), (33_000, 8, 2)] {
                let ids = (0..<t * k).map { _ in probe.integer(below: e + 1) - 1 }.map { $0 == 3 ? -1 : $0 }
                let order = try probe.backend.sortByExpert(probe.put(ids, t, k), experts: e)
                probe.expect(order, of: ids, choices: k, experts: e)
            }
        },
    ]

    /// Softmax of each row E wide.
    static func softmax(_ x: [Double], _ e: Int) -> [Double] {
        stride(from: 0, to: x.count, by: e).flatMap { begin in
            let row = x[begin..<begin + e]
            let largest = row.max() ?? 0
            let weights = row.map { exp($0 - largest) }
            let sum = weights.reduce(0, +)
            return weights.map { $0 / sum }
        }
    }

    static let capacity: [[OpCheck]] = [
        make("limit to capacity", [.f32]) { probe in
            let (t, e, k) = (24, 4, 2)
            let (scores, values) = (try probe.draw(t, e, mean: 1, spread: 0.2), try probe.draw(t, k))
            let ids = (0..<t).flatMap { _ -> [Int] in
                let first = probe.integer(below: e)
                return [first, (first + 1 + probe.integer(below: e - 1)) % e]
            }
            let (groups, capacities) = ([0..<10, 10..<24], [3, 5])
            let stream = RandomStream(seed: 5, purpose: .tokenSelection, layer: 1, step: 2)
            // Higher keeps its place; equal ranks stay in the order of places.
            let rules: [(priority: CapacityPriority, rank: (Int) -> Double)] = [
                (.position, { _ in 0 }), (.score(scores.tensor), { scores.values[$0 / k * e + ids[$0]] }),
                (.random(stream, firstGlobalSlot: 9), { uniform(stream, 9 + UInt64($0)) }),
                (.slots(values.tensor), { values.values[$0] }),
            ]
            for (priority, rank) in rules {
                let kept = try probe.empty(t, k, dtype: .i32)
                try probe.backend.limitToCapacity(
                    probe.put(ids, t, k), experts: e, groups: groups, capacities: capacities,
                    priority: priority, into: kept)
                var expected = Array(repeating: -1, count: t * k)
                for (group, capacity) in zip(groups, capacities) {
                    // First choices of all tokens before second choices: the order of places.
                    let slots = (0..<k).flatMap { choice in group.map { $0 * k + choice } }
                    for expert in 0..<e {
                        let wanted = slots.filter { ids[$0] == expert }.enumerated().sorted { a, b in
                            let (x, y) = (rank(a.element), rank(b.element))
                            return x != y ? x > y : a.offset < b.offset
                        }
                        for (_, slot) in wanted.prefix(capacity) { expected[slot] = expert }
                    }
                }
                probe.expect(kept, equals: expected)
            }
        },
        make("drop light choices", [.f32]) { probe in
            let (t, k) = (50, 3)
            let ids = (0..<t * k).map { _ in probe.integer(below: 9) - 1 }
            let weights = try probe.draw(t, k)
            let kept = try probe.empty(t, k, dtype: .i32)
            try probe.backend.dropLightChoices(
                probe.put(ids, t, k), weights: weights.tensor, below: 0.1, into: kept)
            probe.expect(
                kept,
                equals: ids.enumerated().map { slot, id in
                    slot % k == 0 || weights.values[slot] >= Double(Float(0.1)) ? id : -1
                })
        },
        make("pad to capacity", [.f32]) { probe in
            let (t, e, k) = (12, 3, 1)
            let ids = (0..<t).map { $0 % 4 == 3 ? -1 : $0 % 3 }
            let (groups, capacities) = ([0..<6, 6..<12], [2, 3])
            let order = try probe.backend.padToCapacity(
                probe.put(ids, t, k), experts: e, groups: groups, capacities: capacities)
            var rows = Array(repeating: -1, count: t * k)
            for expert in 0..<e {
                for (group, start) in zip(groups, [0, 2]) {
                    for (place, slot) in group.filter({ ids[$0] == expert }).enumerated() {
                        rows[slot] = expert * 5 + start + place
                    }
                }
            }
            probe.expect(order.slotToRow, equals: rows)
            var slots = Array(repeating: -1, count: e * 5)
            for (slot, row) in rows.enumerated() where row >= 0 { slots[row] = slot }
            probe.expect(order.rowToSlot, equals: slots)
            probe.expect(order.rowToToken, equals: slots.map { $0 < 0 ? -1 : $0 / k })
            probe.expect(order.counts, equals: (0..<e).map { expert in ids.count { $0 == expert } })
            probe.expect(order.offsets, equals: (0...e).map { $0 * 5 })
        },
    ]
}
