public import ApusTensor
import CApusKernels

// Shape letters: T query tokens, S sequences, Hq query heads, Hk key heads, H head width.

/// Where the keys and values of each sequence are.
public struct KVView: Sendable {
    /// Keys: (tokens, Hk, H) contiguous, perhaps a strided slice of a fused projection; (blocks, B, Hk, H) in blocks.
    public let keys: Tensor
    /// Values, laid out as the keys.
    public let values: Tensor
    /// How a sequence's keys are found.
    public let layout: Layout

    /// The placement of sequences.
    public enum Layout: Sendable {
        /// Sequence `s` has the tokens `cumulativeLengths[s] ..< cumulativeLengths[s + 1]`; (S + 1) `i32`.
        case contiguous(cumulativeLengths: Tensor)
        /// Key `j` of sequence `s` is entry `j % B` of block `table[s, j / B]`. `table` is (S, most blocks) and
        /// `lengths` (S), both `i32` (PagedAttention, Kwon et al. 2023).
        case blocks(table: Tensor, lengths: Tensor)
    }

    /// A view over keys and values.
    public init(keys: Tensor, values: Tensor, layout: Layout) {
        self.keys = keys
        self.values = values
        self.layout = layout
    }

    /// Hk.
    public var headCount: Int { keys.shape[-2] }

    /// Waits for work elsewhere that completes any of its tensors.
    func waitUntilReady() throws {
        try keys.waitUntilReady()
        try values.waitUntilReady()
        switch layout {
        case .contiguous(let cumulativeLengths): try cumulativeLengths.waitUntilReady()
        case .blocks(let table, let lengths):
            try table.waitUntilReady()
            try lengths.waitUntilReady()
        }
    }
}

/// Which keys a query sees.
public struct AttentionMask: Sendable {
    /// Whether query `i` of `q` sees keys up to `k - q + i` only; without, all keys of its sequence (also cross attention).
    public var isCausal: Bool
    /// Of the visible keys, only the last `window` are seen; 0 for all.
    public var window: Int
    /// (T) `i32`: the first visible key of each query, counted from its sequence's start: document boundaries.
    public var firstKey: Tensor?

    /// Causal, over all earlier keys.
    public static let causal = AttentionMask(isCausal: true)
    /// Every key of the sequence.
    public static let none = AttentionMask(isCausal: false)

    /// A mask.
    public init(isCausal: Bool, window: Int = 0, firstKey: Tensor? = nil) {
        self.isCausal = isCausal
        self.window = window
        self.firstKey = firstKey
    }
}

/// Scaled dot-product attention over ragged sequences, tiled with online softmax (FlashAttention, Dao et al. 2022).
public protocol AttentionOp {
    /// `out = softmax(scale * q k^T) v` over each query's visible keys; a query that sees none gets zeros.
    ///
    /// - Parameters:
    ///   - q: (T, Hq, H); Hq is a multiple of Hk, and `Hq / Hk` consecutive heads share a key head.
    ///   - cumulativeLengths: (S + 1) `i32` boundaries of the sequences among the queries.
    ///   - out: (T, Hq, H).
    ///   - logSumExp: (T, Hq) `f32`, kept for backward when given.
    func attention(
        _ q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float, into out: Tensor,
        logSumExp: Tensor?) throws
    /// Gradients of queries, keys and values from that of the output; contiguous keys only. Overwrites `dq`, `dk`, `dv`,
    /// which may be slices of one fused gradient.
    func attentionBackward(
        _ dout: Tensor, q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float,
        out: Tensor,
        logSumExp: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) throws
}

extension CPUBackend: AttentionOp {
    public func attention(
        _ q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float, into out: Tensor,
        logSumExp: Tensor?
    ) throws {
        try q.waitUntilReady()
        try cumulativeLengths.waitUntilReady()
        try kv.waitUntilReady()
        try mask.firstKey?.waitUntilReady()
        let problem = attentionProblem(q, cumulativeLengths, kv, mask, scale)
        let view = kernelView(kv)
        checkAttention(problem, view)
        let target = attentionOutput(out)
        let units = withUnsafePointer(to: problem) { apus_attention_forward_units($0) }
        let scratch = try workspace(
            bytesPerThread: withUnsafePointer(to: problem) { apus_attention_forward_workspace($0) })
        let sums = logSumExp.map { $0.pointer(to: Float.self) }
        pool.run(parts: units) { unit, thread in
            withUnsafePointer(to: problem) { problem in
                withUnsafePointer(to: view) { view in
                    withUnsafePointer(to: target) { target in
                        apus_attention_forward(
                            problem, view, target, sums, scratch.pointer(thread: thread), unit, unit + 1)
                    }
                }
            }
        }
    }

    public func attentionBackward(
        _ dout: Tensor, q: Tensor, cumulativeLengths: Tensor, kv: KVView, mask: AttentionMask, scale: Float,
        out: Tensor,
        logSumExp: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
    ) throws {
        try dout.waitUntilReady()
        try q.waitUntilReady()
        try cumulativeLengths.waitUntilReady()
        try kv.waitUntilReady()
        try mask.firstKey?.waitUntilReady()
        try out.waitUntilReady()
        try logSumExp.waitUntilReady()
        let problem = attentionProblem(q, cumulativeLengths, kv, mask, scale)
        let view = kernelView(kv)
        checkAttention(problem, view)
        let (result, gradient) = (attentionRows(out), attentionRows(dout))
        let (queries, keys, values) = (attentionOutput(dq), attentionOutput(dk), attentionOutput(dv))
        let sums = logSumExp.pointer(to: Float.self)
        let units = withUnsafePointer(to: problem) { apus_attention_backward_units($0) }
        let bytes = withUnsafePointer(to: problem) { problem in
            withUnsafePointer(to: view) { apus_attention_backward_workspace(problem, $0) }
        }
        let scratch = try workspace(bytesPerThread: bytes)
        pool.run(parts: units) { unit, thread in
            var (problem, view, result, gradient) = (problem, view, result, gradient)
            var (queries, keys, values) = (queries, keys, values)
            apus_attention_backward(
                &problem, &view, &result, sums, &gradient, &queries, &keys, &values, scratch.pointer(thread: thread),
                unit,
                unit + 1)
        }
    }

    private func attentionProblem(
        _ q: Tensor, _ cumulativeLengths: Tensor, _ kv: KVView, _ mask: AttentionMask, _ scale: Float
    ) -> apus_attention_problem {
        apus_attention_problem(
            sequences: cumulativeLengths.count - 1, query_heads: q.shape[1], key_heads: kv.headCount,
            head_width: q.shape[2], scale: scale,
            mask: mask.isCausal ? APUS_ATTENTION_MASK_CAUSAL : APUS_ATTENTION_MASK_NONE, window: mask.window,
            cu_q: UnsafePointer(cumulativeLengths.pointer(to: Int32.self)),
            first_key: mask.firstKey.map { UnsafePointer($0.pointer(to: Int32.self)) }, q: attentionRows(q))
    }

    private func kernelView(_ kv: KVView) -> apus_kv_view {
        var view = apus_kv_view()
        switch kv.layout {
        case .contiguous(let cumulativeLengths):
            view.k = attentionRows(kv.keys)
            view.v = attentionRows(kv.values)
            view.cu_k = UnsafePointer(cumulativeLengths.pointer(to: Int32.self))
        case .blocks(let table, let lengths):
            view.k = blockRows(kv.keys)
            view.v = blockRows(kv.values)
            view.block_table = UnsafePointer(table.pointer(to: Int32.self))
            view.block_table_stride = table.rowStride
            view.kv_lengths = UnsafePointer(lengths.pointer(to: Int32.self))
            view.block_size = kv.keys.shape[1]
            view.k_block_stride = kv.keys.rowStride
            view.v_block_stride = kv.values.rowStride
        }
        return view
    }

    private func attentionRows(_ x: Tensor) -> apus_attention_rows {
        apus_attention_rows(
            data: UnsafeRawPointer(x.rawPointer), token_stride: x.rowStride, head_stride: x.shape[2],
            dtype: x.kernelType)
    }

    private func blockRows(_ x: Tensor) -> apus_attention_rows {
        apus_attention_rows(
            data: UnsafeRawPointer(x.rawPointer), token_stride: x.shape[2] * x.shape[3], head_stride: x.shape[3],
            dtype: x.kernelType)
    }

    private func attentionOutput(_ x: Tensor) -> apus_attention_output {
        apus_attention_output(
            data: x.rawPointer, token_stride: x.rowStride, head_stride: x.shape[2], dtype: x.kernelType)
    }

    private func checkAttention(_ problem: apus_attention_problem, _ view: apus_kv_view) {
        var (problem, view) = (problem, view)
        if let fault = apus_attention_check(&problem, &view) { preconditionFailure(String(cString: fault)) }
    }
}
