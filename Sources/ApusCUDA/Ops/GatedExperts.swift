public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, R routed rows sorted by expert, E experts, D model width, F expert width, K choices per token.

extension CUDABackend: GatedExpertsOp {
    public func fusesGatedExperts(_ dtype: DType, experts: Int, width: Int, hidden: Int) -> Bool {
        dtype == .bf16 && hasHopperProducts(experts) && width % 8 == 0 && hidden % 8 == 0
    }

    public func gatedExperts(
        _ x: Tensor, rows: Tensor?, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor?,
        into hidden: Tensor
    ) throws {
        let (count, width) = (hidden.shape[0], hidden.rowCount)
        let (experts, depth) = (weights.shape[0], weights.shape[2])
        precondition(weights.shape[1] == 2 * width && x.rowCount == depth && offsets.count == experts + 1)
        precondition(x.dtype == hidden.dtype && (rows?.count ?? x.shape[0]) == count && weights.isContiguous)
        precondition(pre.map { $0.shape == Shape(count, 2 * width) && $0.isContiguous } ?? true)
        guard count > 0 else { return }
        let stacked = weights.reshaped(experts * 2 * width, depth)
        guard fusesGatedExperts(x.dtype, experts: experts, width: depth, hidden: width),
            ([x, stacked, hidden] + (pre.map { [$0] } ?? [])).allSatisfy(TensorMap.fits)
        else {
            return try gatedExpertsInParts(
                x, rows: rows, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, into: hidden)
        }
        let maps = try (
            map(stacked, boxRows: 128), map(halves(pre ?? hidden, width), planes: 64), map(hidden, boxRows: 64)
        )
        if let rows {
            return try launch(
                pre == nil ? "experts_forward_once_picked_sm90a" : "experts_forward_picked_sm90a", hopperShape, x,
                x.rowStride, rows, maps.0, maps.1, maps.2, pre, hidden, hidden.rowStride, offsets, rowWeights, experts,
                width, depth)
        }
        try launch(
            pre == nil ? "experts_forward_once_sm90a" : "experts_forward_sm90a", hopperShape, map(x, boxRows: 128),
            maps.0, maps.1, maps.2, pre, hidden, hidden.rowStride, offsets, rowWeights, experts, width, depth)
    }

    public func gatedExpertsBackward(
        _ dy: Tensor, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor, hidden: Tensor,
        weightGradients: Tensor?
    ) throws {
        let (rows, width) = (hidden.shape[0], hidden.rowCount)
        let (experts, depth) = (weights.shape[0], weights.shape[1])
        precondition(weights.shape[2] == width && dy.rowCount == depth && offsets.count == experts + 1)
        precondition(dy.dtype == hidden.dtype && dy.shape[0] == rows && weights.isContiguous)
        precondition(pre.shape == Shape(rows, 2 * width) && pre.isContiguous)
        guard rows > 0 else { return }
        let stacked = weights.reshaped(experts * depth, width)
        guard fusesGatedExperts(dy.dtype, experts: experts, width: depth, hidden: width),
            [dy, stacked, pre, hidden].allSatisfy(TensorMap.fits)
        else {
            return try gatedExpertsBackwardInParts(
                dy, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, hidden: hidden,
                weightGradients: weightGradients)
        }
        // A sum for each 64 columns, then theirs: always in the same order.
        let parts = ceilDivide(width, 64)
        let dots = try weightGradients.map { _ in try empty(Shape(rows, parts), .f32, .workspace) }
        try launch(
            "experts_backward_sm90a", hopperShape, map(dy, boxRows: 128), map(stacked, boxRows: 64), pre, hidden,
            hidden.rowStride, offsets, rowWeights, dots, experts, width, depth)
        if let weightGradients, let dots {
            try launch("sum_of_rows_f32", .blocks(ceilDivide(rows, 256)), weightGradients, dots, rows, parts)
        }
    }

    public func gatedExpertsInputBackward(
        _ dpre: Tensor, x: Tensor, slotToRow: Tensor, choices: Int, weights: Tensor, offsets: Tensor, rows: Tensor,
        gradient: Tensor, adds: Bool, into dx: Tensor, addsInput: Bool
    ) throws {
        let (experts, n, depth) = (weights.shape[0], weights.shape[1], weights.shape[2])
        let tokens = x.shape[0]
        precondition(dpre.rowCount == n && x.rowCount == depth && rows.rowCount == depth && dx.shape == x.shape)
        precondition(
            dpre.shape[0] == rows.shape[0] && offsets.count == experts + 1 && slotToRow.count == tokens * choices)
        precondition(weights.isContiguous && gradient.isContiguous && gradient.shape == weights.shape)
        let stacked = weights.reshaped(experts * n, depth)
        guard dpre.count > 0, fusesGatedExperts(x.dtype, experts: experts, width: depth, hidden: n / 2),
            movesBeside(n / 2, choices), [dpre, x, stacked, rows, gradient, dx].allSatisfy(TensorMap.fits)
        else {
            return try gatedExpertsInputBackwardInParts(
                dpre, x: x, slotToRow: slotToRow, choices: choices, weights: weights, offsets: offsets, rows: rows,
                gradient: gradient, adds: adds, into: dx, addsInput: addsInput)
        }
        let copies = try empty(rows.shape, rows.dtype, .workspace)
        try launch(
            "grouped_and_scatter_sm90a", hopperShape, map(dpre, boxRows: 128), map(stacked, boxRows: 64),
            map(rows, boxRows: 64), rows, rows.rowStride, offsets, experts, depth, n, copies, copies.rowStride, x,
            x.rowStride, slotToRow, tokens, choices)
        try launch(
            "gradient_and_combine_sm90a_\(gradient.suffix)", hopperShape, map(dpre, boxRows: 64),
            map(copies, boxRows: 64), map(gradient, boxRows: 64), offsets, experts, n, depth, adds, dx,
            dx.rowStride, rows, rows.rowStride, slotToRow, tokens, choices, addsInput)
    }

    /// Whether rows are moved sooner by a product's idle warps than by launches of their own. Idle warps copy at a quarter of
    /// the memory's speed, 0.7 TB/s of R D (1 + 1 / K) elements, and a product takes 4 R F D operations at 700 TFLOP/s: they
    /// end within it from F = 500 (1 + 1 / K) on. At 512 both were as fast, `Benchmarks/notes/h100.md`.
    private func movesBeside(_ hidden: Int, _ choices: Int) -> Bool {
        choices <= 32 && hidden * choices > 500 * (choices + 1)
    }

    /// Gate and up as planes: (R, 2, F), so that a box of one does not reach into the other. What is no pair of them stands
    /// for a map that is not read.
    private func halves(_ rows: Tensor, _ width: Int) -> Tensor {
        rows.rowCount == 2 * width ? rows.reshaped(rows.shape[0], 2, width) : rows
    }
}
