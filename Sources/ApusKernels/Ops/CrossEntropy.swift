public import ApusTensor
import CApusKernels

/// Cross-entropy over rows of logits (T, V), probabilities never stored.
public protocol CrossEntropyOp {
    /// `loss[t] = logSumExp[t] - logits[t, target]`; a negative target is ignored and contributes 0.
    func crossEntropy(_ logits: Tensor, targets: Tensor, loss: Tensor, logSumExp: Tensor) throws
    /// `gradient[t, v] = scale[0] * (softmax(logits)[t, v] - [v = target])`, 0 for ignored rows, `scale` (1) `f32`.
    /// `gradient` may be `logits`.
    func crossEntropyBackward(
        _ logits: Tensor, targets: Tensor, logSumExp: Tensor, scale: Tensor, into gradient: Tensor) throws
}

extension CPUBackend: CrossEntropyOp {
    public func crossEntropy(_ logits: Tensor, targets: Tensor, loss: Tensor, logSumExp: Tensor) throws {
        precondition(targets.count == logits.shape[0])
        try logits.waitUntilReady()
        try targets.waitUntilReady()
        overRows(logits.shape[0], width: logits.rowCount) { range in
            let from = logits[range]
            let begin = range.lowerBound
            let (result, sums) = (loss.pointer(to: Float.self) + begin, logSumExp.pointer(to: Float.self) + begin)
            let wanted = targets.pointer(to: Int32.self) + begin
            if logits.dtype == .f32 {
                apus_cross_entropy_forward_f32(
                    result, sums, from.pointer(), from.rowStride, wanted, range.count, from.rowCount)
            } else {
                apus_cross_entropy_forward_bf16(
                    result, sums, from.pointer(), from.rowStride, wanted, range.count, from.rowCount)
            }
        }
    }

    public func crossEntropyBackward(
        _ logits: Tensor, targets: Tensor, logSumExp: Tensor, scale: Tensor, into gradient: Tensor
    ) throws {
        precondition(targets.count == logits.shape[0] && gradient.shape == logits.shape)
        try logits.waitUntilReady()
        try targets.waitUntilReady()
        try logSumExp.waitUntilReady()
        try scale.waitUntilReady()
        let factor = scale.pointer(to: Float.self)[0]
        overRows(logits.shape[0], width: logits.rowCount) { range in
            let (from, to) = (logits[range], gradient[range])
            let sums = logSumExp.pointer(to: Float.self) + range.lowerBound
            let wanted = targets.pointer(to: Int32.self) + range.lowerBound
            switch (logits.dtype, gradient.dtype) {
            case (.f32, .f32):
                apus_cross_entropy_backward_f32(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, sums, wanted, range.count,
                    from.rowCount,
                    factor)
            case (.bf16, .bf16):
                apus_cross_entropy_backward_bf16(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, sums, wanted, range.count,
                    from.rowCount,
                    factor)
            case (.f32, .bf16):
                apus_cross_entropy_backward_f32_to_bf16(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, sums, wanted, range.count,
                    from.rowCount,
                    factor)
            default: preconditionFailure("cross-entropy of \(logits.dtype) logits into \(gradient.dtype)")
            }
        }
    }
}
