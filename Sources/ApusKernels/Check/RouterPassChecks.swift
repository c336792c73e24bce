import ApusTensor
import Glibc

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

extension OpCheck {
    private static let rules = [
        GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 1),
        GateRule(isSoftmaxOfChosen: false, renormalizes: false, scale: 2.5),
        GateRule(isSoftmaxOfChosen: true, renormalizes: false, scale: 1),
    ]

    static let routerPass: [[OpCheck]] = [
        make("expert choice", [.f32]) { probe in
            // One block of tokens, several, and more than a warp has lanes; more choices than that, and each kernel's most
            // experts.
            let sizes = [
                (1, 1, 1), (9, 8, 2), (70, 64, 8), (300, 5, 3), (5, 100, 4), (130, 256, 6), (4, 300, 2), (3, 40, 33),
                (9000, 8, 2),
            ]
            for (index, (t, e, k)) in sizes.enumerated() {
                let (logits, bias) = (try probe.draw(t, e, spread: 2), try probe.draw(e, spread: 0.3))
                let (isSigmoid, rule) = (index % 2 == 1, rules[index % rules.count])
                let choice = try probe.backend.chooseExperts(
                    logits.tensor, choices: k, isSigmoid: isSigmoid, bias: index % 3 == 1 ? bias.tensor : nil,
                    rule: rule)
                let scores = isSigmoid ? logits.values.map { 1 / (1 + exp(-$0)) } : softmax(logits.values, e)
                probe.expect(choice.scores, scores)
                // Ranked as the backend rounds its scores, for equal ones may be apart in double precision.
                let found = isSigmoid ? probe.floats(choice.scores).map { Double($0) } : logits.values
                let ids = (0..<t).flatMap { row -> [Int] in
                    let rank = { Float(found[row * e + $0]) + (index % 3 == 1 ? Float(bias.values[$0]) : 0) }
                    return Array((0..<e).sorted { rank($0) != rank($1) ? rank($0) > rank($1) : $0 < $1 }.prefix(k))
                }
                probe.expect(choice.ids, equals: ids)
                probe.expect(
                    choice.weights, weights(rule.isSoftmaxOfChosen ? logits.values : scores, e, ids, k, rule))
                probe.expect(choice.permutation, of: ids, choices: k, experts: e)
            }
        },
        make("expert choice, op by op", [.f32]) { probe in
            // What is chosen at once is computed again op by op: not a bit may differ.
            let sizes = [(33, 8, 1), (70, 64, 2), (20, 100, 3), (40, 8, 8), (9, 256, 8), (5, 300, 3), (4, 40, 32)]
            for ((t, e, k), rule) in sizes.flatMap({ size in rules.map { (size, $0) } }) {
                let (logits, bias) = (try probe.draw(t, e, spread: 2), try probe.draw(e, spread: 0.3))
                for isSigmoid in [false, true] {
                    let bias = isSigmoid ? bias.tensor : nil
                    let found = try probe.backend.chooseExperts(
                        logits.tensor, choices: k, isSigmoid: isSigmoid, bias: bias, rule: rule)
                    let wanted = try probe.backend.composedChoice(
                        logits.tensor, choices: k, isSigmoid: isSigmoid, bias: bias, rule: rule)
                    try probe.expect(found, bitsOf: wanted)
                }
            }
        },
        make("sums and counts over groups", [.f32]) { probe in
            for (e, k, groups) in [(6, 3, [0..<3, 3..<7]), (40, 2, [0..<2100, 2100..<2103])] {
                let t = groups.last?.upperBound ?? 0
                let (values, ids) = (
                    try probe.draw(t, e, mean: 1), (0..<t * k).map { _ in probe.integer(below: e + 1) - 1 }
                )
                let counted = (0..<t).map { $0 % 3 != 1 }
                let mask = try probe.backend.tensor(counted.map { $0 ? 1 : 0 } as [UInt8], Shape(t), .workspace)
                let (sums, counts) = (try probe.empty(groups.count, e), try probe.empty(groups.count, e))
                try probe.backend.sumAndCount(
                    values.tensor, ids: probe.put(ids, t, k), groups: groups, mask: mask, sums: sums, counts: counts)
                var (wanted, chosen) = (Array(repeating: 0.0, count: groups.count * e), [Double]())
                chosen = wanted
                for (g, group) in groups.enumerated() {
                    for token in group where counted[token] {
                        for x in 0..<e { wanted[g * e + x] += values.values[token * e + x] }
                        for id in ids[token * k..<(token + 1) * k] where id >= 0 { chosen[g * e + id] += 1 }
                    }
                }
                probe.expect(sums, wanted)
                probe.expect(counts, chosen)
            }
        },
        make("softmax gate backward", [.f32]) { probe in
            let (t, e, k, groups) = (7, 9, 3, [0..<3, 3..<7])
            for rule in rules {
                for adds in [false, true] {
                    let logits = try probe.draw(t, e)
                    let ids = (0..<t * k).map { slot in slot % 5 == 4 ? -1 : (slot / k + 2 * (slot % k)) % e }
                    let (dweights, dsums) = (try probe.draw(t, k), try probe.draw(groups.count, e))
                    let (dlogits, chosen) = (try probe.draw(t, e), try probe.put(ids, t, k))
                    let (scores, combine) = (try probe.empty(t, e), try probe.empty(t, k))
                    let counted = [1, 1, 0, 1, 1, 1, 0] as [UInt8]
                    try probe.backend.softmax(logits.tensor, into: scores)
                    try probe.backend.gateWeights(
                        rule.isSoftmaxOfChosen ? logits.tensor : scores, ids: chosen, rule: rule, into: combine)
                    try probe.backend.softmaxGateBackward(
                        GateGradients(weights: dweights.tensor, sums: adds ? dsums.tensor : nil), logits: logits.tensor,
                        scores: scores, ids: chosen, weights: combine, rule: rule, groups: groups,
                        mask: probe.backend.tensor(counted, Shape(t), .workspace), into: dlogits.tensor, adds: adds)
                    let slope = numericGradient(logits.values) { x in
                        let p = softmax(x, e)
                        let fromSums = (0..<t * e).reduce(0.0) { sum, place in
                            let group = place / e < 3 ? 0 : 1
                            return sum + (counted[place / e] == 1 ? p[place] * dsums.values[group * e + place % e] : 0)
                        }
                        return dot(dweights.values, weights(rule.isSoftmaxOfChosen ? x : p, e, ids, k, rule))
                            + (adds ? fromSums : 0)
                    }
                    probe.expect(dlogits.tensor, adds ? zip(slope, dlogits.values).map { $0 + $1 } : slope)
                }
            }
        },
    ]

    private static func weights(
        _ scores: [Double], _ e: Int, _ ids: [Int], _ k: Int, _ rule: GateRule
    ) -> [Double] {
        stride(from: 0, to: ids.count, by: k).flatMap { slot -> [Double] in
            let row = slot / k * e
            let raw = ids[slot..<slot + k].map { id in
                id < 0 ? 0 : rule.isSoftmaxOfChosen ? exp(scores[row + id]) : scores[row + id]
            }
            let divisor = rule.isSoftmaxOfChosen || rule.renormalizes ? raw.reduce(0, +) : 1
            return raw.map { divisor == 0 ? 0 : $0 / divisor * Double(rule.scale) }
        }
    }
}

extension CheckProbe {
    /// Two choices must be equal in every bit.
    mutating func expect(_ found: ExpertChoice, bitsOf wanted: ExpertChoice) throws {
        func bits(_ tensor: Tensor) throws -> [UInt32] { try backend.floats(tensor).map(\.bitPattern) }
        func integers(_ choice: ExpertChoice) throws -> [[Int32]] {
            let order = choice.permutation
            return try [
                choice.ids, order.slotToRow, order.rowToSlot, order.rowToToken, order.counts, order.offsets,
            ].map { try backend.array($0, of: Int32.self) }
        }
        let isSame =
            try bits(found.scores) == bits(wanted.scores) && bits(found.weights) == bits(wanted.weights)
            && integers(found) == integers(wanted)
        expect(isSame)
    }

    /// Holds an order of slots against the experts that they chose; -1 is a dropped slot.
    mutating func expect(_ order: RoutingPermutation, of ids: [Int], choices k: Int, experts: Int) {
        let slots = (0..<experts).flatMap { expert in ids.indices.filter { ids[$0] == expert } }
        let counts = (0..<experts).map { expert in ids.count { $0 == expert } }
        expect(order.counts, equals: counts)
        expect(order.offsets, equals: counts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) })
        expect(order.rowToSlot[0..<slots.count], equals: slots)
        expect(order.rowToToken[0..<slots.count], equals: slots.map { $0 / k })
        var rows = Array(repeating: -1, count: ids.count)
        for (row, slot) in slots.enumerated() { rows[slot] = row }
        expect(order.slotToRow, equals: rows)
    }
}
