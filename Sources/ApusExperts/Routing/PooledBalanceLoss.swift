public import ApusCollectives
import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: E experts, K choices per token.

/// The balance loss over all layers' scores at once (`balance: pooled`): what Hugging Face models compute.
///
/// `share * E * sum over e of F[e] * P[e]`, with F the choices of e over all layers divided by the number of
/// (layer, token) pairs (they sum to K), P the mean probability over the same pairs, and `share` this pass's part of
/// the tokens of the global batch that count.
public enum PooledBalanceLoss {
    /// Adds `coefficient` times the loss as roots and returns its value (1) `f32` before the coefficient, or `nil` when
    /// there is no layer or one without probabilities. All layers have the same number of experts.
    ///
    /// A product of means is not the sum of those of parts: `ranks` with other sequences of the same pass add their
    /// counts and probabilities first, and all get the value of the whole.
    public static func addRoots(
        _ routings: [Routing], coefficient: Float, globalTokens: Int, over ranks: (any Collective)? = nil, on tape: Tape
    ) throws -> Tensor? {
        let backend = tape.backend
        let variables = routings.compactMap(\.probabilitySums)
        guard let first = variables.first, variables.count == routings.count else { return nil }
        let groups = first.shape[0]
        let both = try backend.zeros(Shape(2 * groups, first.shape[1]), .f32)
        let (sums, counts) = (both[0..<groups], both[groups..<2 * groups])
        for (routing, variable) in zip(routings, variables) {
            try backend.add(sums, variable.tensor, into: sums)
            if let layer = routing.choiceCounts { try backend.add(counts, layer, into: counts) }
        }
        if let ranks, ranks.size > 1 {
            _ = try backend.arrived(ranks.startAllReduce(both, into: both, after: backend.stream))
        }
        // The op divides counts by their sum and F is counts by pairs: K times as much, on average over layers.
        let layers = Float(routings.count)
        let choices = Float(routings.reduce(0) { $0 + $1.decision.choices }) / layers
        let scale = Float(first.shape[1]) * choices / (layers * Float(globalTokens))
        let value = try backend.empty(Shape(1), .f32)
        let gradient = coefficient != 0 && tape.isRecording ? try backend.empty(first.shape, .f32) : nil
        try backend.balanceLoss(
            sums, counts: counts, scale: scale, into: value, coefficient: coefficient, gradient: gradient)
        if let gradient { for variable in variables { try tape.addRoot(variable, seed: gradient) } }
        return value
    }
}
