public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, W columns of a row that are here.

/// RMSNorm of rows whose columns are divided over several holders: the norm of queries and keys over the whole
/// projection, when each rank has some of the heads.
public protocol DividedRowNorm {
    /// A part of every row, normalised together with the other holders' columns of the same row.
    typealias Part = (x: Tensor, weight: Tensor, y: Tensor)
    /// What arrives at a part: `dy` is replaced by the gradient of `x`.
    typealias PartGradient = (dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, weightGradient: Tensor?)

    /// `y = x * rstd * weight` for each part (T, W), and each part's `rstd` (T) `f32`.
    func forward(_ parts: [Part], epsilon: Float, on tape: Tape) throws -> [Tensor]
    /// Replaces each part's `dy` and adds to its weight's gradient. `x` is what forward read.
    func backward(_ parts: [PartGradient], epsilon: Float, _ backend: any Backend) throws
}
