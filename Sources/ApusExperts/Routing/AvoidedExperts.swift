import ApusKernels
import ApusTensor

// Shape letters: T tokens, E experts, K choices per token.

/// Experts that a token may not be given, because it has them already: a gate that is used twice would otherwise choose the
/// same again for nearly every token (ScMoE's DGMoE, Cai et al. 2024).
struct AvoidedExperts {
    /// (T, K) `i32`; -1 for none.
    let ids: Tensor

    /// (T, E): `scores` with those of each token's avoided experts below all others. What is left keeps its bits.
    func applied(to scores: Tensor, _ backend: any Backend) throws -> Tensor {
        let limited = try backend.empty(scores.shape, .f32, .workspace)
        try backend.copy(scores, into: limited)
        let penalties = try backend.empty(ids.shape, .f32, .workspace)
        try backend.fill(penalties, with: GroupLimit.excluded)
        // The adjoint of reading a score adds at the place that the id names.
        try backend.gateWeightsBackward(
            penalties, scores: scores, ids: ids, weights: penalties,
            rule: GateRule(isSoftmaxOfChosen: false, renormalizes: false, scale: 1), into: limited)
        return limited
    }
}
