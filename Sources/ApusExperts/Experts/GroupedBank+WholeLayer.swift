import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token, R routed rows.

extension GroupedBank {
    /// Gated experts with their weights multiplied into the hidden rows: each product's result is written once, as what the
    /// next one reads. Kept for backward: the first product's output, one copy for each routed row.
    public func wholeLayer(
        _ x: Variable, weights: Variable, _ decision: RoutingDecision, base: () throws -> Variable?, on tape: Tape
    ) throws -> Variable? {
        let backend = tape.backend
        guard matrices.activation == .swiglu, !decision.isPadded, decision.experts == experts,
            backend.fusesGatedExperts(x.dtype, experts: experts, width: matrices.width, hidden: matrices.hidden)
        else { return nil }
        let base = try base()
        let (permutation, choices, rowBound) = (decision.permutation, decision.choices, decision.rowBound)
        let rowWeights = try backend.empty(Shape(rowBound), .f32)
        try backend.gatherRows(
            weights.tensor.reshaped(weights.tensor.count, 1), index: permutation.rowToSlot, scale: nil,
            into: rowWeights.reshaped(rowBound, 1))
        let pre = try tape.isRecording ? backend.empty(Shape(rowBound, matrices.inputWidth), x.dtype) : nil
        let hidden = try backend.empty(Shape(rowBound, matrices.hidden), x.dtype)
        try matrices.inputSpan.withWeights(on: backend.stream) {
            try backend.gatedExperts(
                x.tensor, rows: permutation.rowToToken, weights: $0, offsets: permutation.offsets,
                rowWeights: rowWeights, pre: pre, into: hidden)
        }
        let rows = try backend.empty(Shape(rowBound, matrices.width), x.dtype)
        try matrices.outputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(
                hidden, rows: nil, weights: $0, transposed: true, offsets: permutation.offsets, into: rows)
        }
        let y = try base?.forAdding(on: tape) ?? backend.empty(x.shape, x.dtype)
        try backend.combineRows(
            rows, slotToRow: permutation.slotToRow, weights: nil, choices: choices, into: y, adds: base != nil)
        return tape.record("experts", inputs: [x, weights] + (base.map { [$0] } ?? []), output: y) { flow in
            guard let dy = flow.takeOutput(), let pre else { return }
            let dweights = try backward(dy, x, decision, rowWeights: rowWeights, pre: pre, flow)
            try flow.accumulate(dweights.reshaped(decision.tokenCount, choices), into: weights)
            if let base { try flow.accumulate(dy, into: base) }
        }
    }

    /// Adds the gradients of the matrices and of `x`.
    ///
    /// - Returns: (T K) the gradients of the weights.
    private func backward(
        _ dy: Tensor, _ x: Variable, _ decision: RoutingDecision, rowWeights: Tensor, pre: Tensor,
        _ flow: borrowing GradientFlow
    ) throws -> Tensor {
        let backend = flow.backend
        let (permutation, choices) = (decision.permutation, decision.choices)
        let rows = try backend.empty(Shape(decision.rowBound, matrices.width), dy.dtype)
        try backend.scatterRows(dy, slotToRow: permutation.slotToRow, choices: choices, into: rows)
        let slopes = try backend.empty(rowWeights.shape, .f32)
        try backwardOfOutputs(rows, decision, rowWeights: rowWeights, pre: pre, slopes: slopes, backend)
        try backwardOfInputs(pre, x, decision, rows: rows, flow)
        let dweights = try backend.empty(Shape(decision.tokenCount * choices), .f32)
        try backend.gatherRows(
            slopes.reshaped(slopes.count, 1), index: permutation.slotToRow, scale: nil,
            into: dweights.reshaped(dweights.count, 1))
        return dweights
    }

    /// Adds the gradients of the first matrices and of `x`; `rows` are overwritten.
    private func backwardOfInputs(
        _ dpre: Tensor, _ x: Variable, _ decision: RoutingDecision, rows: Tensor, _ flow: borrowing GradientFlow
    ) throws {
        let backend = flow.backend
        let (permutation, choices) = (decision.permutation, decision.choices)
        guard let (gradient, addsWeights) = try matrices.inputSpan.gradientTarget() else {
            guard x.needsGradient else { return }
            try matrices.inputSpan.withWeights(on: backend.stream) {
                try backend.groupedMatMul(
                    dpre, rows: nil, weights: $0, transposed: false, offsets: permutation.offsets, into: rows)
            }
            return try flow.accumulate(into: x) { dx, adds in
                try backend.combineRows(
                    rows, slotToRow: permutation.slotToRow, weights: nil, choices: choices, into: dx, adds: adds)
            }
        }
        guard x.needsGradient else {
            try backend.scatterRows(x.tensor, slotToRow: permutation.slotToRow, choices: choices, into: rows)
            return try backend.groupedWeightGradient(
                dpre, rows, rows: nil, offsets: permutation.offsets, into: gradient, adds: addsWeights)
        }
        try matrices.inputSpan.withWeights(on: backend.stream) { weights in
            try flow.accumulate(into: x) { dx, adds in
                try backend.gatedExpertsInputBackward(
                    dpre, x: x.tensor, slotToRow: permutation.slotToRow, choices: choices, weights: weights,
                    offsets: permutation.offsets, rows: rows, gradient: gradient, adds: addsWeights, into: dx,
                    addsInput: adds)
            }
        }
    }

    /// Turns `pre` into its gradient; the hidden rows are here no longer than their weights' gradient needs.
    private func backwardOfOutputs(
        _ drows: Tensor, _ decision: RoutingDecision, rowWeights: Tensor, pre: Tensor, slopes: Tensor,
        _ backend: any Backend
    ) throws {
        let offsets = decision.permutation.offsets
        let hidden = try backend.empty(Shape(decision.rowBound, matrices.hidden), drows.dtype)
        try matrices.outputSpan.withWeights(on: backend.stream) {
            try backend.gatedExpertsBackward(
                drows, weights: $0, offsets: offsets, rowWeights: rowWeights, pre: pre, hidden: hidden,
                weightGradients: slopes)
        }
        if let (gradient, adds) = try matrices.outputSpan.gradientTarget() {
            try backend.groupedWeightGradient(drows, hidden, rows: nil, offsets: offsets, into: gradient, adds: adds)
        }
    }
}
