public import ApusKernels
public import ApusTensor

// Shape letters: R routed rows sorted by expert, E experts, D model width, F expert width.

extension CUDABackend: GatedExpertsOp {
    public func fusesGatedExperts(_ dtype: DType, experts: Int, width: Int, hidden: Int) -> Bool {
        dtype == .bf16 && hasHopperProducts(experts) && width % 8 == 0 && hidden % 8 == 0
    }

    public func gatedExperts(
        _ x: Tensor, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor?, into hidden: Tensor
    ) throws {
        let (rows, width) = (hidden.shape[0], hidden.rowCount)
        let (experts, depth) = (weights.shape[0], weights.shape[2])
        precondition(weights.shape[1] == 2 * width && x.rowCount == depth && offsets.count == experts + 1)
        precondition(x.dtype == hidden.dtype && x.shape[0] == rows && weights.isContiguous)
        precondition(pre.map { $0.shape == Shape(rows, 2 * width) && $0.isContiguous } ?? true)
        guard rows > 0 else { return }
        let stacked = weights.reshaped(experts * 2 * width, depth)
        guard fusesGatedExperts(x.dtype, experts: experts, width: depth, hidden: width),
            ([x, stacked, hidden] + (pre.map { [$0] } ?? [])).allSatisfy(TensorMap.fits)
        else {
            return try gatedExpertsInParts(
                x, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, into: hidden)
        }
        try launch(
            pre == nil ? "experts_forward_once_sm90a" : "experts_forward_sm90a", hopperShape, map(x, boxRows: 128),
            map(stacked, boxRows: 128), map(halves(pre ?? hidden, width), planes: 64), map(hidden, boxRows: 64), pre,
            hidden, hidden.rowStride, offsets, rowWeights, experts, width, depth)
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
            "experts_backward_sm90a", hopperShape, map(dy, boxRows: 128), map(stacked, boxRows: 64),
            map(halves(pre, width), planes: 16), map(hidden, boxRows: 16), pre, hidden, hidden.rowStride, offsets,
            rowWeights, dots, experts, width, depth)
        if let weightGradients, let dots {
            try launch("sum_of_rows_f32", .blocks(ceilDivide(rows, 256)), weightGradients, dots, rows, parts)
        }
    }

    /// Gate and up as planes: (R, 2, F), so that a box of one does not reach into the other. What is no pair of them stands
    /// for a map that is not read.
    private func halves(_ rows: Tensor, _ width: Int) -> Tensor {
        rows.rowCount == 2 * width ? rows.reshaped(rows.shape[0], 2, width) : rows
    }
}
