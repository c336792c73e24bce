public import ApusTensor
import CApusKernels

/// Looking up rows of a table (V, D) by token id.
public protocol EmbeddingOp {
    /// `y[t] = table[tokens[t]]`. Ids must be inside the table.
    func embed(_ tokens: Tensor, table: Tensor, into y: Tensor) throws
    /// `gradient[tokens[t]] += dy[t]`, in the order of t. `gradient` (V, D) is `f32` or `bf16`.
    func embedBackward(_ dy: Tensor, tokens: Tensor, into gradient: Tensor) throws
}

extension CPUBackend: EmbeddingOp {
    public func embed(_ tokens: Tensor, table: Tensor, into y: Tensor) throws {
        try gatherRows(table, index: tokens, scale: nil, into: y)
    }

    public func embedBackward(_ dy: Tensor, tokens: Tensor, into gradient: Tensor) throws {
        precondition(tokens.count == dy.shape[0] && gradient.rowCount == dy.rowCount)
        try dy.waitUntilReady()
        try tokens.waitUntilReady()
        try accumulateInFloat(gradient) { wide in
            // Threads share the vocabulary, not the tokens: the order of each row's sum does not depend on their number.
            pool.forEachRange(count: wide.shape[0], grain: 64) { range, _ in
                let (first, last) = (Int32(range.lowerBound), Int32(range.upperBound))
                if dy.dtype == .f32 {
                    apus_embedding_backward_f32(
                        wide.pointer(), wide.rowStride, dy.pointer(), dy.rowStride, tokens.pointer(), dy.shape[0],
                        dy.rowCount, first, last)
                } else {
                    apus_embedding_backward_bf16(
                        wide.pointer(), wide.rowStride, dy.pointer(), dy.rowStride, tokens.pointer(), dy.shape[0],
                        dy.rowCount, first, last)
                }
            }
        }
    }
}
