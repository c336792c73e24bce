public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, V vocabulary.

extension CUDABackend: CrossEntropyOp {
    public func crossEntropy(_ logits: Tensor, targets: Tensor, loss: Tensor, logSumExp: Tensor) throws {
        precondition(targets.count == logits.shape[0])
        try launch(
            "cross_entropy_\(logits.suffix)", .blocks(logits.shape[0]), loss, logSumExp, logits, logits.rowStride,
            targets, logits.rowCount)
    }

    public func crossEntropyBackward(
        _ logits: Tensor, targets: Tensor, logSumExp: Tensor, scale: Tensor, into gradient: Tensor
    ) throws {
        precondition(targets.count == logits.shape[0] && gradient.shape == logits.shape)
        precondition(logits.dtype == .f32 || gradient.dtype == .bf16, "bf16 logits into an f32 gradient")
        try launch(
            "cross_entropy_backward_\(logits.suffix)_\(gradient.suffix)", .blocks(logits.shape[0]), gradient,
            gradient.rowStride, logits, logits.rowStride, logSumExp, targets, scale, logits.rowCount)
    }
}
