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

    /// `gradient[e] (+)= dy[group]^T x[group]` over the rows of each expert; 0 for one without rows.
    ///
    /// - Parameters:
    ///   - dy: (R, N) gradients of the outputs.
    ///   - x: (R, K) rows, or, with `rows`, the matrix they are picked from.
    ///   - gradient: (E, N, K), `f32` or `bf16`; not read without `adds`.
    func groupedWeightGradient(
        _ dy: Tensor, _ x: Tensor, rows: Tensor?, offsets: Tensor, into gradient: Tensor, adds: Bool) throws
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
        let groups = groups(offsets)
        let weight = weights[0..<1].reshaped(weights.shape[1], weights.shape[2])
        let (x, rows) = try picked(x, rows, groups) {
            Product($0, Matrix(weight, transposed: transposed), into: out, isBatchInvariant: isBatchInvariant)
        }
        var queue = ProductQueue(self)
        for (expert, range) in groups {
            let weight = weights[expert..<expert + 1].reshaped(weights.shape[1], weights.shape[2])
            let source = rows.map { Matrix(x, rows: $0[range]) } ?? Matrix(x[range])
            queue.add(
                Product(
                    source, Matrix(weight, transposed: transposed), into: out[range],
                    isBatchInvariant: isBatchInvariant))
        }
        try queue.run()
    }

    public func groupedWeightGradient(
        _ dy: Tensor, _ x: Tensor, rows: Tensor?, offsets: Tensor, into gradient: Tensor, adds: Bool
    ) throws {
        let (experts, width, depth) = (gradient.shape[0], gradient.shape[1], gradient.shape[2])
        precondition(offsets.count == experts + 1 && gradient.isContiguous)
        try dy.waitUntilReady()
        try x.waitUntilReady()
        try rows?.waitUntilReady()
        try offsets.waitUntilReady()
        try gradient.waitUntilReady()
        let groups = groups(offsets)
        let (x, rows) = try picked(x, rows, groups) {
            Product(
                dy.transpose, $0, into: gradient[0..<1].reshaped(width, depth), beta: adds ? 1 : 0,
                isBatchInvariant: isBatchInvariant)
        }
        var queue = ProductQueue(self)
        for (expert, range) in groups {
            let source = rows.map { Matrix(x, rows: $0[range]) } ?? Matrix(x[range])
            let target = gradient[expert..<expert + 1].reshaped(width, depth)
            queue.add(
                Product(
                    dy[range].transpose, source, into: target, beta: adds ? 1 : 0, isBatchInvariant: isBatchInvariant))
        }
        try queue.run()
        guard !adds else { return }
        let busy = Set(groups.map(\.expert))
        for expert in 0..<experts where !busy.contains(expert) { fill(gradient[expert..<expert + 1], with: 0) }
    }

    /// The rows themselves where oneDNN can then compute the products and is worth a copy; else the index as it is.
    ///
    /// - Parameter product: What an expert's product would be with all rows.
    private func picked(
        _ x: Tensor, _ rows: Tensor?, _ groups: [(expert: Int, rows: Range<Int>)], _ product: (Matrix) -> Product
    ) throws -> (Tensor, Tensor?) {
        guard let rows, let first = groups.first, let last = groups.last, x.dtype == .bf16,
            productEngine.kernelEngine(for: product(Matrix(x)).arguments) != APUS_GEMM_OWN
        else { return (x, rows) }
        let copies = try empty(Shape(last.rows.upperBound, x.shape[1]), x.dtype, .workspace)
        let range = first.rows.lowerBound..<last.rows.upperBound
        try gatherRows(x, index: rows[range], scale: nil, into: copies[range])
        return (copies, nil)
    }

    /// The experts that have rows, and which.
    private func groups(_ offsets: Tensor) -> [(expert: Int, rows: Range<Int>)] {
        let starts = offsets.array(of: Int32.self).map(Int.init)
        return zip(starts, starts.dropFirst()).enumerated().compactMap { expert, bounds in
            bounds.0 < bounds.1 ? (expert, bounds.0..<bounds.1) : nil
        }
    }
}
