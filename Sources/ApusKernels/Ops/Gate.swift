public import ApusTensor
import Glibc

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

/// How the combine weights of a token are formed from what its router scored.
public struct GateRule: Sendable, Equatable {
    /// The weights are a softmax over the chosen logits, not the chosen scores.
    public var isSoftmaxOfChosen: Bool
    /// The weights of a token are divided by their sum over the choices that are kept.
    public var renormalizes: Bool
    /// Factor on every weight.
    public var scale: Float

    /// A rule.
    public init(isSoftmaxOfChosen: Bool, renormalizes: Bool, scale: Float) {
        self.isSoftmaxOfChosen = isSoftmaxOfChosen
        self.renormalizes = renormalizes
        self.scale = scale
    }

    /// What a sum of weights is raised to before dividing by it, so that weights that are all 0 stay 0.
    static let smallestSum: Float = 1.2e-38
}

/// From scores and choices to combine weights and the sums that the balance losses are made of, and back.
public protocol GateOp {
    /// Combine weights (T, K) `f32` from `scores` (T, E) and `ids` (T, K); a choice of -1 gets 0. Without `ids` a token
    /// chooses every expert, in order.
    ///
    /// For ``GateRule/isSoftmaxOfChosen`` pass logits as `scores`.
    func gateWeights(_ scores: Tensor, ids: Tensor?, rule: GateRule, into weights: Tensor) throws
    /// `dscores` (T, E) `+=` the gradient of ``gateWeights(_:ids:rule:into:)``.
    func gateWeightsBackward(
        _ dweights: Tensor, scores: Tensor, ids: Tensor?, weights: Tensor, rule: GateRule, into dscores: Tensor) throws
    /// `sums[g]` (G, E) `= ` the sum of `values` (T, E) over the tokens of each group that `mask` (T) `u8` lets count.
    func sumOverGroups(_ values: Tensor, groups: [Range<Int>], mask: Tensor?, into sums: Tensor) throws
    /// `dvalues[t] += dsums[g]` for the tokens of each group that count.
    func sumOverGroupsBackward(_ dsums: Tensor, groups: [Range<Int>], mask: Tensor?, into dvalues: Tensor) throws
    /// `counts` (G, E) `f32`: how often each expert is chosen in each group, by tokens that count.
    func countChoices(_ ids: Tensor, groups: [Range<Int>], mask: Tensor?, into counts: Tensor) throws
}

extension CPUBackend: GateOp {
    public func gateWeights(_ scores: Tensor, ids: Tensor?, rule: GateRule, into weights: Tensor) throws {
        let (experts, choices) = (scores.shape[1], weights.shape[1])
        try scores.waitUntilReady()
        try ids?.waitUntilReady()
        let (source, chosen, target) = (
            scores.pointer(to: Float.self), ids?.pointer(to: Int32.self), weights.pointer(to: Float.self)
        )
        overRows(weights.shape[0], width: 4 * choices) { range in
            for token in range {
                let (row, out) = (source + token * experts, target + token * choices)
                let pick = { k in chosen.map { Int($0[token * choices + k]) } ?? k }
                var largest = -Float.infinity
                for k in 0..<choices where pick(k) >= 0 { largest = max(largest, row[pick(k)]) }
                var sum: Float = 0
                for k in 0..<choices {
                    let expert = pick(k)
                    out[k] = expert < 0 ? 0 : rule.isSoftmaxOfChosen ? exp(row[expert] - largest) : row[expert]
                    sum += out[k]
                }
                let divides = rule.isSoftmaxOfChosen || rule.renormalizes
                let factor = divides ? rule.scale / max(sum, GateRule.smallestSum) : rule.scale
                for k in 0..<choices { out[k] *= factor }
            }
        }
    }

    public func gateWeightsBackward(
        _ dweights: Tensor, scores: Tensor, ids: Tensor?, weights: Tensor, rule: GateRule, into dscores: Tensor
    ) throws {
        let (experts, choices) = (scores.shape[1], weights.shape[1])
        try dweights.waitUntilReady()
        try scores.waitUntilReady()
        try ids?.waitUntilReady()
        try weights.waitUntilReady()
        try dscores.waitUntilReady()
        let (gradient, source, chosen) = (
            dweights.pointer(to: Float.self), scores.pointer(to: Float.self), ids?.pointer(to: Int32.self)
        )
        let (value, target) = (weights.pointer(to: Float.self), dscores.pointer(to: Float.self))
        overRows(weights.shape[0], width: 4 * choices) { range in
            for token in range {
                let (d, w) = (gradient + token * choices, value + token * choices)
                let pick = { k in chosen.map { Int($0[token * choices + k]) } ?? k }
                let (row, out) = (source + token * experts, target + token * experts)
                // v is the score or its exponential. Of w = scale * v / sum(v):
                // dv = scale / sum(v) * (dw - sum(dw * w) / scale).
                var mean: Float = 0
                var sum: Float = 0
                for k in 0..<choices where pick(k) >= 0 {
                    mean += d[k] * w[k] / rule.scale
                    sum += row[pick(k)]
                }
                for k in 0..<choices where pick(k) >= 0 {
                    let expert = pick(k)
                    if rule.isSoftmaxOfChosen {
                        out[expert] += w[k] * (d[k] - mean)
                    } else if rule.renormalizes {
                        out[expert] += rule.scale / max(sum, GateRule.smallestSum) * (d[k] - mean)
                    } else {
                        out[expert] += rule.scale * d[k]
                    }
                }
            }
        }
    }

    public func sumOverGroups(_ values: Tensor, groups: [Range<Int>], mask: Tensor?, into sums: Tensor) throws {
        let experts = values.shape[1]
        try values.waitUntilReady()
        try mask?.waitUntilReady()
        let (source, target) = (values.pointer(to: Float.self), sums.pointer(to: Float.self))
        let counts = mask?.pointer(to: UInt8.self)
        pool.run(parts: groups.count) { group, _ in
            let out = target + group * experts
            for expert in 0..<experts { out[expert] = 0 }
            for token in groups[group] where counts.map({ $0[token] != 0 }) ?? true {
                let row = source + token * experts
                for expert in 0..<experts { out[expert] += row[expert] }
            }
        }
    }

    public func sumOverGroupsBackward(_ dsums: Tensor, groups: [Range<Int>], mask: Tensor?, into dvalues: Tensor) throws
    {
        let experts = dvalues.shape[1]
        try dsums.waitUntilReady()
        try mask?.waitUntilReady()
        try dvalues.waitUntilReady()
        let (source, target) = (dsums.pointer(to: Float.self), dvalues.pointer(to: Float.self))
        let counts = mask?.pointer(to: UInt8.self)
        pool.run(parts: groups.count) { group, _ in
            let row = source + group * experts
            for token in groups[group] where counts.map({ $0[token] != 0 }) ?? true {
                let out = target + token * experts
                for expert in 0..<experts { out[expert] += row[expert] }
            }
        }
    }

    public func countChoices(_ ids: Tensor, groups: [Range<Int>], mask: Tensor?, into counts: Tensor) throws {
        let (experts, choices) = (counts.shape[1], ids.shape[1])
        try ids.waitUntilReady()
        try mask?.waitUntilReady()
        let (chosen, target) = (ids.pointer(to: Int32.self), counts.pointer(to: Float.self))
        let isCounted = mask?.pointer(to: UInt8.self)
        pool.run(parts: groups.count) { group, _ in
            let out = target + group * experts
            for expert in 0..<experts { out[expert] = 0 }
            for token in groups[group] where isCounted.map({ $0[token] != 0 }) ?? true {
                for k in 0..<choices where chosen[token * choices + k] >= 0 {
                    out[Int(chosen[token * choices + k])] += 1
                }
            }
        }
    }
}
