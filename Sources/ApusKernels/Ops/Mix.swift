public import ApusTensor
import CApusKernels

// Shape letters: T tokens, D model width.

/// Two branches mixed with weights of each token (PR-MoE, DeepSpeed-MoE section 3.1).
public protocol MixOp {
    /// `y[t] = weights[t, 0] * a[t] + weights[t, 1] * b[t]`, all (T, D), `weights` (T, 2) `f32`.
    func mixRows(_ a: Tensor, _ b: Tensor, weights: Tensor, into y: Tensor) throws
    /// `da[t] = weights[t, 0] * dy[t]`, `db` likewise, and `dweights[t] = (dot(a[t], dy[t]), dot(b[t], dy[t]))`.
    func mixRowsBackward(
        _ dy: Tensor, _ a: Tensor, _ b: Tensor, weights: Tensor, da: Tensor, db: Tensor, dweights: Tensor) throws
}

extension CPUBackend: MixOp {
    public func mixRows(_ a: Tensor, _ b: Tensor, weights: Tensor, into y: Tensor) throws {
        precondition(a.shape == b.shape && a.shape == y.shape && weights.count == 2 * a.shape[0])
        try a.waitUntilReady()
        try b.waitUntilReady()
        try weights.waitUntilReady()
        overRows(y.shape[0], width: y.rowCount) { range in
            let (to, first, second) = (y[range], a[range], b[range])
            let factors = weights.pointer(to: Float.self) + 2 * range.lowerBound
            if y.dtype == .f32 {
                apus_mix_rows_f32(
                    to.pointer(), to.rowStride, first.pointer(), first.rowStride, second.pointer(), second.rowStride,
                    factors, range.count, y.rowCount)
            } else {
                apus_mix_rows_bf16(
                    to.pointer(), to.rowStride, first.pointer(), first.rowStride, second.pointer(), second.rowStride,
                    factors, range.count, y.rowCount)
            }
        }
    }

    public func mixRowsBackward(
        _ dy: Tensor, _ a: Tensor, _ b: Tensor, weights: Tensor, da: Tensor, db: Tensor, dweights: Tensor
    ) throws {
        precondition(dy.shape == a.shape && dy.shape == b.shape && weights.count == 2 * dy.shape[0])
        try dy.waitUntilReady()
        try a.waitUntilReady()
        try b.waitUntilReady()
        try weights.waitUntilReady()
        overRows(dy.shape[0], width: 2 * dy.rowCount) { range in
            let factors = weights.pointer(to: Float.self) + 2 * range.lowerBound
            let slopes = dweights.pointer(to: Float.self) + 2 * range.lowerBound
            let gradient = dy[range]
            for (branch, pair) in [(a, da), (b, db)].enumerated() {
                let (value, to) = (pair.0[range], pair.1[range])
                if dy.dtype == .f32 {
                    apus_mix_rows_backward_f32(
                        to.pointer(), to.rowStride, slopes, gradient.pointer(), gradient.rowStride, value.pointer(),
                        value.rowStride, factors, branch, range.count, dy.rowCount)
                } else {
                    apus_mix_rows_backward_bf16(
                        to.pointer(), to.rowStride, slopes, gradient.pointer(), gradient.rowStride, value.pointer(),
                        value.rowStride, factors, branch, range.count, dy.rowCount)
                }
            }
        }
    }
}
