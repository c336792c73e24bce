import ApusKernels
import ApusTensor
import Synchronization

// Shape letters: S sequences, T query tokens, Hq query heads, Hk key heads, H head width.

/// Attention by cuDNN, for the calls that ``AttentionEngine`` gives it. Each is false where our own kernels must do it.
extension CUDABackend {
    func fusedForward(
        _ q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float, into out: Tensor,
        logSumExp: Tensor?
    ) throws -> Bool {
        guard let fusedAttention else { return false }
        let facts = facts(q, cumulativeLengths, kv, mask, out, logSumExp, gradients: nil)
        guard case .fused(let shape) = AttentionEngine(facts),
            let plan = try fusedAttention.plan(.forward, shape, on: queue)
        else { return false }
        guard let sums = logSumExp else { return false }
        for tensor in [q, kv.keys, kv.values, out, sums] { try wait(for: tensor) }
        let workspace = try empty(Shape(max(plan.workspaceBytes, 1)), .u8, .workspace)
        try fusedAttention.run(
            plan,
            [
                .queries: q.address, .keys: kv.keys.address, .values: kv.values.address, .out: out.address,
                .logSumExp: sums.address,
            ], scale: scale, workspace: workspace.address)
        return true
    }

    func fusedBackward(
        _ dout: Tensor, q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float,
        out: Tensor, logSumExp: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
    ) throws -> Bool {
        guard let fusedAttention else { return false }
        let facts = facts(q, cumulativeLengths, kv, mask, out, logSumExp, gradients: (dout, dq, dk, dv))
        let isDeterministic = fusedAttention.isDeterministic
        guard case .fused(let shape) = AttentionEngine(facts),
            let part = isDeterministic ? shape.part(within: FusedAttention.workspaceLimit) : shape,
            let plan = try fusedAttention.plan(.backward(isDeterministic: isDeterministic), part, on: queue)
        else { return false }
        for tensor in [dout, q, kv.keys, kv.values, out, logSumExp, dq, dk, dv] { try wait(for: tensor) }
        let workspace = try empty(Shape(max(plan.workspaceBytes, 1)), .u8, .workspace)
        var shared: [AttentionRole: Tensor] = [:]
        shared[.delta] = try empty(Shape(part.column.extents), .f32, .workspace)
        if !isDeterministic {
            shared[.queryAccumulator] = try empty(Shape(part.denseQueryRows.extents), .f32, .workspace)
        }
        if part.needsLengths {
            shared[.queryLengths] = try constant(Array(repeating: part.queryLength, count: part.sequences))
            shared[.keyLengths] = try constant(Array(repeating: part.keyLength, count: part.sequences))
        }
        for first in shape.parts(like: part) {
            let query = { (tensor: Tensor) in
                tensor.address(token: first.sequence * shape.queryLength, head: first.queryHead)
            }
            let key = { (tensor: Tensor) in
                tensor.address(token: first.sequence * shape.keyLength, head: first.keyHead)
            }
            var addresses = shared.mapValues(\.address)
            for (role, tensor) in [
                (AttentionRole.queries, q), (.out, out), (.outGradient, dout), (.queryGradient, dq),
                (.logSumExp, logSumExp),
            ] { addresses[role] = query(tensor) }
            for (role, tensor) in [
                (AttentionRole.keys, kv.keys), (.values, kv.values), (.keyGradient, dk), (.valueGradient, dv),
            ] { addresses[role] = key(tensor) }
            try fusedAttention.run(plan, addresses, scale: scale, workspace: workspace.address)
        }
        return true
    }

    private func facts(
        _ q: Tensor, _ cumulativeLengths: Tensor, _ kv: KVView, _ mask: AttentionMask, _ out: Tensor,
        _ logSumExp: Tensor?, gradients: (dout: Tensor, dq: Tensor, dk: Tensor, dv: Tensor)?
    ) -> AttentionFacts {
        var keyStarts: Tensor?
        if case .contiguous(let starts) = kv.layout { keyStarts = starts }
        var rows = [q, kv.keys, kv.values, out]
        if let gradients { rows += [gradients.dout, gradients.dq, gradients.dk, gradients.dv] }
        return AttentionFacts(
            capability: limits.capability, isBatchInvariant: isBatchInvariant,
            isRecording: recording.withLock { $0 != nil }, keepsSums: logSumExp != nil,
            isBF16: rows.allSatisfy { $0.dtype == .bf16 }, areKeysInBlocks: keyStarts == nil, isCausal: mask.isCausal,
            window: mask.window, hasFirstKeys: mask.firstKey != nil,
            queryLengths: equalLengths.sequences(of: cumulativeLengths),
            keyLengths: keyStarts.flatMap { equalLengths.sequences(of: $0) }, tokens: q.shape[0],
            keyTokens: kv.keys.shape[0], queryHeads: q.shape[1], keyHeads: kv.headCount, width: q.shape[2],
            queryStride: q.rowStride, keyStride: kv.keys.rowStride, valueStride: kv.values.rowStride,
            outStride: out.rowStride,
            gradients: gradients.map {
                .init(out: $0.dout.rowStride, query: $0.dq.rowStride, key: $0.dk.rowStride, value: $0.dv.rowStride)
            }, addresses: (rows + (logSumExp.map { [$0] } ?? [])).map(\.address))
    }
}

extension Tensor {
    /// The address of a head of a token in (T, heads, H), or of its number in (T, heads).
    fileprivate func address(token: Int, head: Int) -> UInt64 {
        let element = token * rowStride + head * (shape.rank == 3 ? shape[2] : 1)
        return address + UInt64(dtype.byteCount(elements: element))
    }
}
