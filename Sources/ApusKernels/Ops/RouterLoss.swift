public import ApusTensor
import CApusKernels
import Glibc

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

/// The losses that keep a router in order: each its value and its gradient in one pass, nothing read by the host.
///
/// `scale` is one over the tokens of the global batch that count, times whatever else is constant, so that the values
/// of the parts of a batch add up to that of the whole. The gradient, when it is wanted, is that of
/// `coefficient * value`; the value is without the coefficient. Everything is `f32`; a value is (1).
public protocol RouterLossOp {
    /// `value = scale * sum over g, e of f[g, e] * sums[g, e]`, with `f[g, e]` the share of expert `e` in the choices
    /// of group `g`, a constant. A group without choices adds nothing.
    ///
    /// - Parameters:
    ///   - sums: (G, E) summed probabilities.
    ///   - counts: (G, E) choices of each expert.
    ///   - gradient: (G, E), overwritten.
    func balanceLoss(
        _ sums: Tensor, counts: Tensor, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?) throws
    /// `value = scale * sum over t of logSumExp(logits[t])^2`, over the tokens that `mask` (T) `u8` lets count.
    ///
    /// - Parameters:
    ///   - logits: (T, E).
    ///   - gradient: (T, E), overwritten.
    func logitLoss(
        _ logits: Tensor, mask: Tensor?, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?) throws
    /// `value = scale * sum over g of T_g * CV(load[g])^2`: the squared coefficient of variation over experts of the
    /// weights that each gets, a group weighing as many tokens T_g as count in it.
    ///
    /// - Parameters:
    ///   - weights: (T, K).
    ///   - ids: (T, K) `i32`, -1 for a dropped choice.
    ///   - gradient: (T, K), overwritten.
    func importanceLoss(
        _ weights: Tensor, ids: Tensor, experts: Int, groups: [Range<Int>], mask: Tensor?, scale: Float,
        into value: Tensor, coefficient: Float, gradient: Tensor?) throws
}

extension CPUBackend: RouterLossOp {
    public func balanceLoss(
        _ sums: Tensor, counts: Tensor, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        let (groups, experts) = (sums.shape[0], sums.shape[1])
        try sums.waitUntilReady()
        try counts.waitUntilReady()
        let (probability, chosen) = (sums.pointer(to: Float.self), counts.pointer(to: Float.self))
        let slope = gradient?.pointer(to: Float.self)
        var total = 0.0
        for group in 0..<groups {
            let range = group * experts..<(group + 1) * experts
            let choices = range.reduce(Float(0)) { $0 + chosen[$1] }
            let factor = choices > 0 ? scale / choices : 0
            for index in range {
                total += Double(factor * chosen[index]) * Double(probability[index])
                slope?[index] = coefficient * factor * chosen[index]
            }
        }
        value.pointer(to: Float.self)[0] = Float(total)
    }

    public func logitLoss(
        _ logits: Tensor, mask: Tensor?, scale: Float, into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        let (tokens, experts) = (logits.shape[0], logits.shape[1])
        try logits.waitUntilReady()
        try mask?.waitUntilReady()
        let sums = try empty(Shape(tokens), .f32, .workspace)
        try logSumExp(logits, into: sums)
        let (sum, isCounted) = (sums.pointer(to: Float.self), mask?.pointer(to: UInt8.self))
        let total = (0..<tokens).reduce(0.0) { total, token in
            guard isCounted.map({ $0[token] != 0 }) ?? true else { return total }
            return total + Double(sum[token]) * Double(sum[token])
        }
        value.pointer(to: Float.self)[0] = Float(Double(scale) * total)
        guard let gradient else { return }
        // The softmax of the logits, each row times the derivative of its square.
        try softmax(logits, into: gradient)
        let slope = gradient.pointer(to: Float.self)
        overRows(tokens, width: experts) { range in
            for token in range {
                let counts = isCounted.map { $0[token] != 0 } ?? true
                let factor = counts ? 2 * coefficient * scale * sum[token] : 0
                for index in token * experts..<(token + 1) * experts { slope[index] *= factor }
            }
        }
    }

    public func importanceLoss(
        _ weights: Tensor, ids: Tensor, experts: Int, groups: [Range<Int>], mask: Tensor?, scale: Float,
        into value: Tensor, coefficient: Float, gradient: Tensor?
    ) throws {
        let choices = ids.shape[1]
        try weights.waitUntilReady()
        try ids.waitUntilReady()
        try mask?.waitUntilReady()
        let (weight, chosen) = (weights.pointer(to: Float.self), ids.pointer(to: Int32.self))
        let (slope, isCounted) = (gradient?.pointer(to: Float.self), mask?.pointer(to: UInt8.self))
        let loads = try empty(Shape(groups.count, experts), .f32, .workspace)
        let terms = try empty(Shape(groups.count), .f32, .workspace)
        let (allLoads, term) = (loads.pointer(to: Float.self), terms.pointer(to: Float.self))
        pool.run(parts: groups.count) { group, _ in
            let load = allLoads + group * experts
            load.update(repeating: 0, count: experts)
            var counted = 0
            for token in groups[group] where isCounted.map({ $0[token] != 0 }) ?? true {
                counted += 1
                for slot in token * choices..<(token + 1) * choices where chosen[slot] >= 0 {
                    load[Int(chosen[slot])] += weight[slot]
                }
            }
            let mean = (0..<experts).reduce(0) { $0 + load[$1] } / Float(experts)
            let variance = (0..<experts).reduce(0) { $0 + (load[$1] - mean) * (load[$1] - mean) } / Float(experts)
            let share = mean > 0 ? scale * Float(counted) / (mean * mean) : 0
            term[group] = share * variance
            guard let slope else { return }
            // d(variance / mean^2) / dload = 2 / (E mean^2) * (load - mean - variance / mean).
            let factor = coefficient * share * 2 / Float(experts)
            let shift = mean > 0 ? mean + variance / mean : 0
            for token in groups[group] {
                let counts = isCounted.map { $0[token] != 0 } ?? true
                for slot in token * choices..<(token + 1) * choices {
                    let isLoad = counts && chosen[slot] >= 0
                    slope[slot] = isLoad ? factor * (load[Int(chosen[slot])] - shift) : 0
                }
            }
        }
        value.pointer(to: Float.self)[0] = Float((0..<groups.count).reduce(0.0) { $0 + Double(term[$1]) })
    }
}
