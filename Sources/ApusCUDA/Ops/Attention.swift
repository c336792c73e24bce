public import ApusKernels
public import ApusTensor

// Shape letters: T query tokens, S sequences, Hq query heads, Hk key heads, G = Hq / Hk, H head width.

extension CUDABackend: AttentionOp {
    public func attention(
        _ q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float, into out: Tensor,
        logSumExp: Tensor?
    ) throws {
        let isDone = try fusedForward(
            q, cumulativeLengths: cumulativeLengths, kv: kv, mask: mask, scale: scale, into: out, logSumExp: logSumExp)
        if isDone { return }
        let call = try AttentionCall(q, cumulativeLengths, kv, mask, scale, [.forward], limits)
        let k = kv.tokenStride(of: kv.keys)
        let v = kv.tokenStride(of: kv.values)
        try launchAttention(
            "attention_\(call.kernels.ending(.forward))", call.queryShape(.forward), call, out, out.rowStride,
            logSumExp, q, q.rowStride, kv.keys, k, kv.values, v)
    }

    public func attentionBackward(
        _ dout: Tensor, q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float,
        out: Tensor, logSumExp: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
    ) throws {
        guard case .contiguous = kv.layout else { preconditionFailure("gradients of keys in blocks") }
        let isDone = try fusedBackward(
            dout, q: q, cumulativeLengths: cumulativeLengths, kv: kv, mask: mask, scale: scale, out: out,
            logSumExp: logSumExp, dq: dq, dk: dk, dv: dv)
        if isDone { return }
        let call = try AttentionCall(
            q, cumulativeLengths, kv, mask, scale, [.queryGradient, .keyGradient], limits)
        let (tokens, heads) = (q.shape[0], q.shape[1])
        let delta = try empty(Shape(tokens, heads), .f32, .workspace)
        try launch(
            "attention_delta_\(q.suffix)", .warps(tokens * heads), delta, dout, dout.rowStride, out, out.rowStride,
            tokens, heads, q.shape[2])
        try launchAttention(
            "attention_key_gradient_\(call.kernels.ending(.keyGradient))", call.keyShape, call, dk, dk.rowStride, dv,
            dv.rowStride, dout, dout.rowStride, logSumExp, delta, q, q.rowStride, kv.keys, kv.keys.rowStride, kv.values,
            kv.values.rowStride)
        try launchAttention(
            "attention_query_gradient_\(call.kernels.ending(.queryGradient))", call.queryShape(.queryGradient), call,
            dq, dq.rowStride, dout, dout.rowStride, logSumExp, delta, q, q.rowStride, kv.keys, kv.keys.rowStride,
            kv.values, kv.values.rowStride)
    }

    /// Launches a kernel whose last arguments are those that all attention kernels share.
    private func launchAttention<each Argument: KernelArgument>(
        _ name: KernelName, _ shape: LaunchShape, _ call: AttentionCall, _ arguments: repeat each Argument
    ) throws {
        try launch(
            name, shape, repeat each arguments, call.queryStarts, call.mask.firstKey, call.keyStarts, call.table,
            call.table?.rowStride ?? 0, call.lengths, call.blockSize, call.keyBlockStride, call.valueBlockStride,
            call.sequences, call.queryHeads, call.keyHeads, call.width, call.mask.isCausal, call.mask.window, call.scale
        )
    }
}

extension KVView {
    /// Elements between tokens of one sequence, within a block where there are blocks.
    fileprivate func tokenStride(of tensor: Tensor) -> Int {
        if case .blocks = layout { return tensor.shape[2] * tensor.shape[3] }
        return tensor.rowStride
    }
}
