public import ApusTensor

// Shape letters: T tokens, R routed rows sorted by expert, E experts, D model width, F expert width, K choices per token.

/// The first half of gated experts (SwiGLU, Shazeer 2020) with the activation behind its product, and the gradient of the
/// second half with the activation's gradient behind its own: what is between the two products passes through memory once.
///
/// A row's weight, with which its token sums it, is multiplied into the hidden. Then the sum over a token's choices needs no
/// weights, the rows that it sums need not be kept, and the weight's gradient comes from the hidden too. Every backend has
/// these; they are worth taking where ``fusesGatedExperts(_:experts:width:hidden:)`` says so.
public protocol GatedExpertsOp {
    /// Whether there are kernels of one pass for such experts, which are faster than the parts.
    func fusesGatedExperts(_ dtype: DType, experts: Int, width: Int, hidden: Int) -> Bool

    /// `pre[r] = weights[e] x[rows[r]]`, and `hidden[r] = rowWeights[r] * silu(gate) * up` with `pre[r] = [gate | up]`.
    ///
    /// - Parameters:
    ///   - x: (R, D), or (any, D) with `rows`.
    ///   - rows: (R) `i32`, the row of x that each row is; the rows of x in order if left out.
    ///   - weights: (E, 2F, D), gate above up.
    ///   - offsets: (E + 1) `i32`, ascending; rows outside of all groups are left alone.
    ///   - rowWeights: (R) `f32`; ones if left out.
    ///   - pre: (R, 2F), for the backward; not formed if left out.
    ///   - hidden: (R, F).
    func gatedExperts(
        _ x: Tensor, rows: Tensor?, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor?,
        into hidden: Tensor) throws

    /// With `g = weights[e]^T dy[r]`, the gradient of `rowWeights[r] * silu(gate) * up`: `pre[r]` becomes its own gradient,
    /// `hidden[r]` what it was, and `weightGradients[r]` the gradient of the row's weight.
    ///
    /// - Parameters:
    ///   - dy: (R, D) gradients of the second products' outputs.
    ///   - weights: (E, D, F), the second matrices.
    ///   - pre: (R, 2F), what ``gatedExperts(_:rows:weights:offsets:rowWeights:pre:into:)`` left there.
    ///   - hidden: (R, F), written.
    ///   - weightGradients: (R) `f32`, written.
    func gatedExpertsBackward(
        _ dy: Tensor, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor, hidden: Tensor,
        weightGradients: Tensor?) throws

    /// Both gradients of the first products: `gradient[e] (+)= dpre[group]^T x[group]`, and `dx[t] (+)=` the sum over the
    /// token's choices of `weights[e]^T dpre[r]`. Rows move between tokens and experts for both, which a kernel of products
    /// may do beside them.
    ///
    /// - Parameters:
    ///   - dpre: (R, 2F).
    ///   - x: (T, D).
    ///   - slotToRow: (T, K) `i32`, -1 where a choice has no row.
    ///   - weights: (E, 2F, D).
    ///   - offsets: (E + 1) `i32`, ascending.
    ///   - rows: (R, D), overwritten.
    ///   - gradient: (E, 2F, D) `f32` or the type of x.
    ///   - dx: (T, D).
    func gatedExpertsInputBackward(
        _ dpre: Tensor, x: Tensor, slotToRow: Tensor, choices: Int, weights: Tensor, offsets: Tensor, rows: Tensor,
        gradient: Tensor, adds: Bool, into dx: Tensor, addsInput: Bool) throws
}

extension GatedExpertsOp where Self: Backend {
    /// The parts, one after the other.
    public func fusesGatedExperts(_ dtype: DType, experts: Int, width: Int, hidden: Int) -> Bool { false }

    public func gatedExperts(
        _ x: Tensor, rows: Tensor?, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor?,
        into hidden: Tensor
    ) throws {
        try gatedExpertsInParts(
            x, rows: rows, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, into: hidden)
    }

    public func gatedExpertsBackward(
        _ dy: Tensor, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor, hidden: Tensor,
        weightGradients: Tensor?
    ) throws {
        try gatedExpertsBackwardInParts(
            dy, weights: weights, offsets: offsets, rowWeights: rowWeights, pre: pre, hidden: hidden,
            weightGradients: weightGradients)
    }

    /// ``gatedExperts(_:rows:weights:offsets:rowWeights:pre:into:)`` by ops of their own.
    public func gatedExpertsInParts(
        _ x: Tensor, rows: Tensor?, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor?,
        into hidden: Tensor
    ) throws {
        let pre = try pre ?? empty(Shape(hidden.shape[0], weights.shape[1]), x.dtype, .workspace)
        try groupedMatMul(x, rows: rows, weights: weights, transposed: true, offsets: offsets, into: pre)
        guard let rowWeights else { return try activate(.swiglu, pre, into: hidden) }
        let plain = try empty(hidden.shape, hidden.dtype, .workspace)
        try activate(.swiglu, pre, into: plain)
        try gatherRows(plain, index: everyRow(hidden), scale: rowWeights, into: hidden)
    }

    /// ``gatedExpertsBackward(_:weights:offsets:rowWeights:pre:hidden:weightGradients:)`` by ops of their own.
    public func gatedExpertsBackwardInParts(
        _ dy: Tensor, weights: Tensor, offsets: Tensor, rowWeights: Tensor?, pre: Tensor, hidden: Tensor,
        weightGradients: Tensor?
    ) throws {
        let gradient = try empty(hidden.shape, hidden.dtype, .workspace)
        try groupedMatMul(dy, rows: nil, weights: weights, transposed: false, offsets: offsets, into: gradient)
        let plain = try empty(hidden.shape, hidden.dtype, .workspace)
        try activate(.swiglu, pre, into: plain)
        let rows = try everyRow(hidden)
        let weighted = try rowWeights == nil ? gradient : empty(hidden.shape, hidden.dtype, .workspace)
        if rowWeights != nil || weightGradients != nil {
            try combineRowsBackward(
                gradient, rows: plain, slotToRow: rows, weights: rowWeights, choices: 1,
                drows: rowWeights == nil ? nil : weighted, dweights: weightGradients?.reshaped(hidden.shape[0], 1))
        }
        try activateBackward(.swiglu, weighted, h: pre, into: pre, recomputed: nil)
        try gatherRows(plain, index: rows, scale: rowWeights, into: hidden)
    }

    public func gatedExpertsInputBackward(
        _ dpre: Tensor, x: Tensor, slotToRow: Tensor, choices: Int, weights: Tensor, offsets: Tensor, rows: Tensor,
        gradient: Tensor, adds: Bool, into dx: Tensor, addsInput: Bool
    ) throws {
        try gatedExpertsInputBackwardInParts(
            dpre, x: x, slotToRow: slotToRow, choices: choices, weights: weights, offsets: offsets, rows: rows,
            gradient: gradient, adds: adds, into: dx, addsInput: addsInput)
    }

    /// ``gatedExpertsInputBackward(_:x:slotToRow:choices:weights:offsets:rows:gradient:adds:into:addsInput:)`` by ops of
    /// their own.
    public func gatedExpertsInputBackwardInParts(
        _ dpre: Tensor, x: Tensor, slotToRow: Tensor, choices: Int, weights: Tensor, offsets: Tensor, rows: Tensor,
        gradient: Tensor, adds: Bool, into dx: Tensor, addsInput: Bool
    ) throws {
        try scatterRows(x, slotToRow: slotToRow, choices: choices, into: rows)
        try groupedWeightGradient(dpre, rows, rows: nil, offsets: offsets, into: gradient, adds: adds)
        try groupedMatMul(dpre, rows: nil, weights: weights, transposed: false, offsets: offsets, into: rows)
        try combineRows(rows, slotToRow: slotToRow, weights: nil, choices: choices, into: dx, adds: addsInput)
    }

    /// The numbers of the rows, in order.
    private func everyRow(_ rows: Tensor) throws -> Tensor {
        try tensor((0..<Int32(rows.shape[0])).map { $0 }, Shape(rows.shape[0]), .workspace)
    }
}

extension CPUBackend: GatedExpertsOp {}
