import ApusTensor
import Glibc

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

extension OpCheck {
    private static let rules = [
        GateRule(isSoftmaxOfChosen: false, renormalizes: false, scale: 1),
        GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 2.5),
        GateRule(isSoftmaxOfChosen: true, renormalizes: false, scale: 1),
    ]
    private static let (t, e, k) = (7, 6, 3)
    private static let groups = [0..<3, 3..<7]

    /// Different experts for each token, the last choice of every other one dropped.
    private static func ids(_ probe: inout CheckProbe) -> [Int] {
        (0..<t).flatMap { token -> [Int] in
            let first = probe.integer(below: e)
            return [first, (first + 2) % e, token % 2 == 0 ? -1 : (first + 3) % e]
        }
    }

    static let gate: [[OpCheck]] = [
        make("gate weights", [.f32]) { probe in
            for rule in rules {
                let (scores, ids) = (try probe.draw(t, e, mean: 2, spread: 0.5), ids(&probe))
                let weights = try probe.empty(t, k)
                try probe.backend.gateWeights(scores.tensor, ids: probe.put(ids, t, k), rule: rule, into: weights)
                probe.expect(weights, gateWeights(scores.values, ids, rule))
                let all = try probe.empty(t, e)
                try probe.backend.gateWeights(scores.tensor, ids: nil, rule: rule, into: all)
                probe.expect(all, gateWeights(scores.values, (0..<t * e).map { $0 % e }, rule))
            }
        },
        make("gate weights backward", [.f32]) { probe in
            for rule in rules {
                let (scores, ids, dw) = (try probe.draw(t, e, mean: 2, spread: 0.5), ids(&probe), try probe.draw(t, k))
                let (weights, dscores) = (try probe.empty(t, k), try probe.draw(t, e))
                let chosen = try probe.put(ids, t, k)
                try probe.backend.gateWeights(scores.tensor, ids: chosen, rule: rule, into: weights)
                try probe.backend.gateWeightsBackward(
                    dw.tensor, scores: scores.tensor, ids: chosen, weights: weights, rule: rule, into: dscores.tensor)
                let slope = numericGradient(scores.values) { dot(dw.values, gateWeights($0, ids, rule)) }
                probe.expect(dscores.tensor, zip(slope, dscores.values).map { $0 + $1 })
            }
        },
        make("sums over groups", [.f32]) { probe in
            for mask in masks {
                let (values, sums) = (try probe.draw(t, e), try probe.empty(groups.count, e))
                try probe.backend.sumOverGroups(
                    values.tensor, groups: groups, mask: mask8(mask, probe), into: sums)
                probe.expect(
                    sums,
                    groups.flatMap { group in
                        (0..<e).map { x in
                            group.reduce(0) { $0 + (isCounted($1, mask) ? values.values[$1 * e + x] : 0) }
                        }
                    })
            }
        },
        make("sums over groups backward", [.f32]) { probe in
            for mask in masks {
                let (dsums, dvalues) = (try probe.draw(groups.count, e), try probe.draw(t, e))
                try probe.backend.sumOverGroupsBackward(
                    dsums.tensor, groups: groups, mask: mask8(mask, probe), into: dvalues.tensor)
                probe.expect(
                    dvalues.tensor,
                    (0..<t * e).map { place in
                        let group = place / e < 3 ? 0 : 1
                        return dvalues.values[place]
                            + (isCounted(place / e, mask) ? dsums.values[group * e + place % e] : 0)
                    })
            }
        },
        make("choice counts", [.f32]) { probe in
            let (ids, counts) = (ids(&probe), try probe.empty(groups.count, e))
            for mask in masks {
                try probe.backend.countChoices(
                    probe.put(ids, t, k), groups: groups, mask: mask8(mask, probe), into: counts)
                probe.expect(
                    counts,
                    groups.flatMap { group -> [Double] in
                        let chosen = group.filter { isCounted($0, mask) }.flatMap { ids[$0 * k..<($0 + 1) * k] }
                        return (0..<e).map { x in Double(chosen.count { $0 == x }) }
                    })
            }
        },
    ]

    /// All tokens count; not all do.
    private static let masks: [[Int]?] = [nil, [1, 1, 0, 1, 1, 1, 0]]

    private static func isCounted(_ token: Int, _ mask: [Int]?) -> Bool { mask.map { $0[token] != 0 } ?? true }

    private static func mask8(_ mask: [Int]?, _ probe: CheckProbe) throws -> Tensor? {
        try mask.map { try probe.backend.tensor($0.map { UInt8($0) }, Shape($0.count), .workspace) }
    }

    private static func gateWeights(_ scores: [Double], _ ids: [Int], _ rule: GateRule) -> [Double] {
        let k = ids.count / t
        return (0..<t).flatMap { token -> [Double] in
            let chosen = ids[token * k..<(token + 1) * k]
            let raw = chosen.map { id in
                id < 0 ? 0 : rule.isSoftmaxOfChosen ? exp(scores[token * e + id]) : scores[token * e + id]
            }
            let divisor = rule.isSoftmaxOfChosen || rule.renormalizes ? raw.reduce(0, +) : 1
            return raw.map { $0 / divisor * Double(rule.scale) }
        }
    }

    static let routerLoss: [[OpCheck]] = [
        make("balance loss", [.f32]) { probe in
            let sums = try probe.draw(3, e, mean: 2, spread: 0.5)
            // The last group chose nobody.
            let drawn = (0..<3 * e).map { $0 < 2 * e ? Double(probe.integer(below: 5)) : 0 }
            let counts = try probe.put(drawn, Shape(3, e), .f32)
            let (value, gradient) = (try probe.empty(1), try probe.empty(3, e))
            try probe.backend.balanceLoss(
                sums.tensor, counts: counts.tensor, scale: 0.25, into: value, coefficient: 3, gradient: gradient)
            let loss = { (sums: [Double]) in
                (0..<3).reduce(0.0) { total, g in
                    let row = counts.values[g * e..<(g + 1) * e]
                    let all = row.reduce(0, +)
                    return total + (all == 0 ? 0 : 0.25 * dot(row.map { $0 / all }, Array(sums[g * e..<(g + 1) * e])))
                }
            }
            probe.expect(value, [loss(sums.values)])
            probe.expect(gradient, numericGradient(sums.values) { 3 * loss($0) })
        },
        make("z-loss", [.f32]) { probe in
            for mask in masks {
                let logits = try probe.draw(t, e, spread: 2)
                let (value, gradient) = (try probe.empty(1), try probe.empty(t, e))
                try probe.backend.logitLoss(
                    logits.tensor, mask: mask8(mask, probe), scale: 0.125, into: value, coefficient: 2,
                    gradient: gradient)
                let loss = { (x: [Double]) in
                    (0..<t).filter { isCounted($0, mask) }.reduce(0.0) { total, row in
                        let z = log((0..<e).reduce(0) { $0 + exp(x[row * e + $1]) })
                        return total + 0.125 * z * z
                    }
                }
                probe.expect(value, [loss(logits.values)])
                probe.expect(gradient, numericGradient(logits.values) { 2 * loss($0) })
            }
        },
        make("importance loss", [.f32]) { probe in
            for mask in masks {
                let (weights, ids) = (try probe.draw(t, k, mean: 1, spread: 0.3), ids(&probe))
                let (value, gradient) = (try probe.empty(1), try probe.empty(t, k))
                try probe.backend.importanceLoss(
                    weights.tensor, ids: probe.put(ids, t, k), experts: e, groups: groups, mask: mask8(mask, probe),
                    scale: 0.125, into: value, coefficient: 2, gradient: gradient)
                let loss = { (w: [Double]) in
                    groups.reduce(0.0) { total, group in
                        let tokens = group.filter { isCounted($0, mask) }
                        var load = Array(repeating: 0.0, count: e)
                        for slot in tokens.flatMap({ $0 * k..<($0 + 1) * k }) where ids[slot] >= 0 {
                            load[ids[slot]] += w[slot]
                        }
                        let mean = load.reduce(0, +) / Double(e)
                        let variance = load.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(e)
                        return total + 0.125 * Double(tokens.count) * variance / (mean * mean)
                    }
                }
                probe.expect(value, [loss(weights.values)])
                probe.expect(gradient, numericGradient(weights.values) { 2 * loss($0) })
            }
        },
    ]
}
