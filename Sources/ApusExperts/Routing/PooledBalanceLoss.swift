public import ApusNN
import ApusKernels
import ApusTensor

// Shape letters: E experts, K choices per token.

/// The balance loss over all layers' scores at once (`balance: pooled`): what Hugging Face models compute.
///
/// `balance * share * E * sum over e of F[e] * P[e]`, with F the choices of e over all layers divided by the number of
/// (layer, token) pairs (they sum to K), P the mean probability over the same pairs, and `share` this pass's part of the
/// global batch.
public enum PooledBalanceLoss {
    /// Adds the loss as roots and returns its value before the coefficient, or `nil` when no layer takes part.
    public static func addRoots(
        _ routings: [Routing], coefficient: Float, countedTokens: Int, globalTokens: Int, on tape: Tape
    ) throws -> Float? {
        let sums = routings.compactMap(\.probabilitySums)
        guard let first = sums.first, sums.count == routings.count, countedTokens > 0 else { return nil }
        let experts = first.shape[1]
        let pairs = Float(routings.count * countedTokens)
        var chosen = [Float](repeating: 0, count: experts)
        var probability = [Float](repeating: 0, count: experts)
        for routing in routings {
            for (index, count) in routing.choiceCounts.floats().enumerated() { chosen[index] += count / pairs }
        }
        for variable in sums {
            for (index, sum) in variable.tensor.floats().enumerated() { probability[index] += sum / pairs }
        }
        let share = Float(countedTokens) / Float(globalTokens)
        let value = share * Float(experts) * zip(chosen, probability).reduce(0) { $0 + $1.0 * $1.1 }
        if coefficient > 0 {
            let factor = coefficient * share * Float(experts) / pairs
            for variable in sums {
                let seed = try tape.backend.allocator.tensor(chosen.map { $0 * factor }, variable.shape, .activations)
                try tape.addRoot(variable, seed: seed)
            }
        }
        return value
    }
}
