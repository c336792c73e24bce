import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

/// The auxiliary losses of one layer: their values, and their gradients as roots on the tape.
///
/// Each is a mean over the tokens of the global batch, formed group by group: a group of `T_g` tokens weighs
/// `T_g / T`. So the sum over micro-batches and ranks is the same however the batch is cut.
struct RouterLossTerms {
    let losses: RouterLosses
    let groups: [Range<Int>]
    let globalTokens: Int
    let experts: Int

    /// The token ranges that balance is measured over: routing groups, or all tokens of the pass when pooled.
    static func groups(_ scope: RouterLosses.BalanceScope, _ layout: TokenLayout) -> [Range<Int>] {
        scope == .pooled ? [0..<layout.tokenCount] : layout.routingGroups
    }

    /// Adds the layer's balance loss (unless it is pooled over layers) and importance loss; returns their values.
    func addRoots(
        weights: Variable, probabilitySums: Variable, choiceCounts: Tensor, ids: Tensor, on tape: Tape
    ) throws -> [RouterLossKind: Tensor] {
        var values: [RouterLossKind: Tensor] = [:]
        if losses.scope == .layer {
            values[.balance] = try addBalance(probabilitySums, choiceCounts, on: tape)
        }
        if losses.importance > 0 { values[.importance] = try addImportance(weights, ids, on: tape) }
        return values
    }

    /// `balance * sum over g of T_g / T * E * sum over e of f[g, e] * P[g, e]`, f the shares of choices, P the mean
    /// probabilities (Switch Transformers equation 4). The value is formed even when the coefficient is 0: it is shown.
    private func addBalance(_ sums: Variable, _ counts: Tensor, on tape: Tape) throws -> Tensor {
        let (probability, chosen) = (sums.tensor.floats(), counts.floats())
        var gradient = [Float](repeating: 0, count: sums.tensor.count)
        var total: Float = 0
        for group in 0..<sums.shape[0] {
            let range = group * sums.shape[1]..<(group + 1) * sums.shape[1]
            let picks = chosen[range].reduce(0, +)
            guard picks > 0 else { continue }
            // T_g / T * E * f * (1 / T_g): the tokens of the group cancel.
            for index in range {
                gradient[index] = Float(experts) * chosen[index] / picks / Float(globalTokens)
                total += gradient[index] * probability[index]
            }
        }
        if losses.balance > 0 {
            let seed = try tape.backend.allocator.tensor(gradient.map { $0 * losses.balance }, sums.shape, .activations)
            try tape.addRoot(sums, seed: seed)
        }
        return try tape.backend.allocator.tensor([total], Shape(1), .activations)
    }

    /// `z / T * sum over t of logSumExp(logits[t])^2`; its gradient is `2 z / T * lse * softmax(logits)`.
    func addLogitRoot(_ logits: Variable, on tape: Tape) throws -> Tensor {
        let backend = tape.backend
        let sums = try backend.empty(Shape(logits.shape[0]), .f32, .workspace)
        try backend.logSumExp(logits.tensor, into: sums)
        let total = try backend.zeros(Shape(1), .f32)
        try backend.sumOfSquares(sums, into: total, adds: false)
        try backend.scale(total, by: 1 / Float(globalTokens), into: total)
        guard tape.isRecording else { return total }
        let probabilities = try backend.empty(logits.shape, .f32, .workspace)
        try backend.softmax(logits.tensor, into: probabilities)
        try backend.scale(sums, by: 2 * losses.z / Float(globalTokens), into: sums)
        let seed = try backend.zeros(logits.shape, .f32)
        try backend.addScaledRows(probabilities, factors: sums, into: seed)
        try tape.addRoot(logits, seed: seed)
        return total
    }

    /// `importance * sum over g of T_g / T * CV(load[g])^2`, with `CV^2 = variance / mean^2` over the experts' summed
    /// weights (Shazeer et al. 2017, equation 7).
    private func addImportance(_ weights: Variable, _ ids: Tensor, on tape: Tape) throws -> Tensor {
        let backend = tape.backend
        let loads = try backend.empty(Shape(groups.count, experts), .f32)
        try backend.sumWeights(weights.tensor, ids: ids, groups: groups, into: loads)
        let values = loads.floats()
        var gradient = [Float](repeating: 0, count: values.count)
        var total: Float = 0
        for (index, group) in groups.enumerated() {
            let range = index * experts..<(index + 1) * experts
            let mean = values[range].reduce(0, +) / Float(experts)
            guard mean > 0 else { continue }
            let variance = values[range].reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(experts)
            let share = Float(group.count) / Float(globalTokens)
            total += share * variance / (mean * mean)
            for place in range {
                // d(variance / mean^2) / dload = 2 / (E mean^2) * (load - mean - variance / mean).
                gradient[place] =
                    losses.importance * share * 2 / (Float(experts) * mean * mean)
                    * (values[place] - mean - variance / mean)
            }
        }
        let dloads = try backend.allocator.tensor(gradient, loads.shape, .activations)
        let seed = try backend.zeros(weights.shape, .f32)
        try backend.sumWeightsBackward(dloads, ids: ids, groups: groups, into: seed)
        try tape.addRoot(weights, seed: seed)
        return try backend.allocator.tensor([total], Shape(1), .activations)
    }
}
