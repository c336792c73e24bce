public import ApusTensor
import CApusKernels

// Shape letters: R routed rows sorted by expert, E experts, N and K the extents of each expert's weight.

/// Products of uneven groups of rows, each group with its expert's weight (MegaBlocks section 6, grouped form).
public protocol GroupedMatMulOp {
    /// `out[r] = op(weights[e]) x[r]` for the rows `offsets[e] ..< offsets[e + 1]` of each expert.
    ///
    /// - Parameters:
    ///   - x: (R, K) rows, or, with `rows`, any matrix that routed row `r` is picked from as `x[rows[r]]`.
    ///   - rows: Optional (R) `i32` index into `x`.
    ///   - weights: (E, N, K) with `transposed`, the form of a linear layer's forward; (E, K, N) without, its data
    ///     gradient.
    ///   - offsets: (E + 1) `i32`, ascending; experts may have no row. Row `offsets[0]` may be above 0.
    ///   - out: (R, N). Rows outside of all groups are left alone.
    func groupedMatMul(
        _ x: Tensor, rows: Tensor?, weights: Tensor, transposed: Bool, offsets: Tensor, into out: Tensor) throws

    /// `gradient[e] += dy[group]^T x[group]` over the rows of each expert.
    ///
    /// - Parameters:
    ///   - dy: (R, N) gradients of the outputs.
    ///   - x: (R, K) rows, or, with `rows`, the matrix they are picked from.
    ///   - gradient: (E, N, K), accumulated in place; `f32` or `bf16`.
    func groupedWeightGradient(_ dy: Tensor, _ x: Tensor, rows: Tensor?, offsets: Tensor, into gradient: Tensor) throws
}

extension CPUBackend: GroupedMatMulOp {
    public func groupedMatMul(
        _ x: Tensor, rows: Tensor?, weights: Tensor, transposed: Bool, offsets: Tensor, into out: Tensor
    ) throws {
        let experts = weights.shape[0]
        precondition(offsets.count == experts + 1 && weights.isContiguous)
        try x.waitUntilReady()
        try rows?.waitUntilReady()
        try weights.waitUntilReady()
        try offsets.waitUntilReady()
        let groups = offsets.array(of: Int32.self).map(Int.init)
        let product = { (expert: Int, range: Range<Int>) in
            let weight = weights[expert..<expert + 1].reshaped(weights.shape[1], weights.shape[2])
            let source = rows.map { Matrix(x, rows: $0[range]) } ?? Matrix(x[range])
            return Product(
                source, Matrix(weight, transposed: transposed), into: out[range],
                isBatchInvariant: self.isBatchInvariant)
        }
        // Blocks small enough that the pool evens out uneven experts, large enough that packing a weight pays.
        let total = (groups.last ?? 0) - (groups.first ?? 0)
        let blockRows = max(64, total / (4 * pool.threadCount) / 16 * 16)
        let blocks = RowBlock.cut(groups) { expert, range in
            let engine = productEngine.kernelEngine(for: product(expert, range).arguments)
            let threads = (range.count + blockRows - 1) / blockRows
            return (engine, Product.parts(of: range.count, engine, threads: threads))
        }
        let scratch = try workspace(bytesPerThread: apus_gemm_workspace_max())
        pool.run(parts: blocks.count) { part, thread in
            let block = blocks[part]
            product(block.expert, block.rows).run(block.engine, scratch.pointer(thread: thread))
        }
    }

    public func groupedWeightGradient(
        _ dy: Tensor, _ x: Tensor, rows: Tensor?, offsets: Tensor, into gradient: Tensor
    ) throws {
        let (experts, width, depth) = (gradient.shape[0], gradient.shape[1], gradient.shape[2])
        precondition(offsets.count == experts + 1 && gradient.isContiguous)
        try dy.waitUntilReady()
        try x.waitUntilReady()
        try rows?.waitUntilReady()
        try offsets.waitUntilReady()
        try gradient.waitUntilReady()
        let groups = offsets.array(of: Int32.self).map(Int.init)
        // An expert is cut over its output rows only when there are fewer experts than would keep the threads even.
        let evenCuts = max(1, min((4 * pool.threadCount + experts - 1) / max(experts, 1), width / 64))
        let cuts = max(evenCuts, Product.parts(of: width, APUS_GEMM_ONEDNN, threads: pool.threadCount))
        let scratch = try workspace(bytesPerThread: apus_gemm_workspace_max())
        pool.run(parts: experts * cuts) { part, thread in
            let (expert, cut) = (part / cuts, part % cuts)
            let group = groups[expert]..<groups[expert + 1]
            guard !group.isEmpty else { return }
            let source = rows.map { Matrix(x, rows: $0[group]) } ?? Matrix(x[group])
            let target = gradient[expert..<expert + 1].reshaped(width, depth)
            let product = Product(
                dy[group].transpose, source, into: target, beta: 1, isBatchInvariant: isBatchInvariant)
            let engine = productEngine.kernelEngine(for: product.arguments)
            let pieces = engine == APUS_GEMM_OWN ? evenCuts : Product.parts(of: width, engine, threads: 1)
            guard cut < pieces else { return }
            let begin = Product.boundary(cut, of: pieces, extent: width)
            let end = Product.boundary(cut + 1, of: pieces, extent: width)
            product.rows(begin..<end).run(engine, scratch.pointer(thread: thread))
        }
    }
}

/// A range of one expert's rows, the unit of work of a grouped product.
private struct RowBlock {
    let expert: Int
    let rows: Range<Int>
    let engine: apus_gemm_engine

    /// Cuts each expert's rows into as many blocks as `plan` says, with the engine for them.
    static func cut(
        _ offsets: [Int], _ plan: (_ expert: Int, _ rows: Range<Int>) -> (engine: apus_gemm_engine, parts: Int)
    ) -> [RowBlock] {
        var blocks: [RowBlock] = []
        for expert in 0..<offsets.count - 1 where offsets[expert] < offsets[expert + 1] {
            let (first, count) = (offsets[expert], offsets[expert + 1] - offsets[expert])
            let (engine, parts) = plan(expert, first..<first + count)
            for part in 0..<parts {
                let begin = first + Product.boundary(part, of: parts, extent: count)
                let end = first + Product.boundary(part + 1, of: parts, extent: count)
                blocks.append(RowBlock(expert: expert, rows: begin..<end, engine: engine))
            }
        }
        // The largest first: what is left for the end is small, and the threads finish together.
        return blocks.sorted { $0.rows.count > $1.rows.count }
    }
}
