import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: D model width, F expert width, E experts, R routed rows.

/// Feed-forward experts as grouped products over uneven groups of rows; nothing padded, nothing dropped.
///
/// Also computes the padded layout, whose groups are merely even. Kept for backward: the first product's output, one
/// copy for each routed row. The activation is computed again, and what is dropped of it drawn again.
public struct GroupedBank: ExpertBank {
    /// The experts' weights.
    public let matrices: ExpertMatrices

    /// A bank of these experts.
    public init(_ matrices: ExpertMatrices) { self.matrices = matrices }

    public var experts: Int { matrices.experts }

    public func restricted(to experts: Range<Int>) -> GroupedBank {
        GroupedBank(matrices.restricted(to: experts))
    }

    public func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let dtype = rows.source.dtype
        let h = try backend.empty(Shape(rows.rowBound, matrices.inputWidth), dtype)
        let a = try backend.empty(Shape(rows.rowBound, matrices.hidden), dtype)
        let y = try backend.empty(Shape(rows.rowBound, matrices.width), dtype)
        try matrices.inputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(
                rows.source.tensor, rows: rows.index, weights: $0, transposed: true, offsets: rows.offsets, into: h)
        }
        try backend.activate(matrices.activation, h, into: a)
        let place = matrices.hiddenPlace
        let dropout = rows.dropout(from: place.first, of: place.total)
        if let dropout { try backend.dropRows(a, dropout, into: a) }
        try matrices.outputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(a, rows: nil, weights: $0, transposed: true, offsets: rows.offsets, into: y)
        }
        return tape.record("experts", inputs: [rows.source], output: y) { flow in
            guard let dy = flow.output() else { return }
            try backward(dy, rows, h: h, dropout, flow)
        }
    }

    private func backward(
        _ dy: Tensor, _ rows: RoutedRows, h: Tensor, _ dropout: RowDropout?, _ flow: borrowing GradientFlow
    ) throws {
        let backend = flow.backend
        let da = try backend.empty(Shape(dy.shape[0], matrices.hidden), dy.dtype)
        try matrices.outputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(dy, rows: nil, weights: $0, transposed: false, offsets: rows.offsets, into: da)
        }
        if let dropout { try backend.dropRows(da, dropout, into: da) }
        try backend.activateBackward(matrices.activation, da, h: h, into: h, recomputed: da)
        let a = da
        if let dropout { try backend.dropRows(a, dropout, into: a) }
        if let (gradient, adds) = try matrices.outputSpan.gradientTarget() {
            try backend.groupedWeightGradient(dy, a, rows: nil, offsets: rows.offsets, into: gradient, adds: adds)
        }
        if let (gradient, adds) = try matrices.inputSpan.gradientTarget() {
            try backend.groupedWeightGradient(
                h, rows.source.tensor, rows: rows.index, offsets: rows.offsets, into: gradient, adds: adds)
        }
        guard rows.source.needsGradient else { return }
        let drows = try backend.empty(Shape(dy.shape[0], matrices.width), dy.dtype)
        try matrices.inputSpan.withWeights(on: backend.stream) {
            try backend.groupedMatMul(h, rows: nil, weights: $0, transposed: false, offsets: rows.offsets, into: drows)
        }
        try rows.accumulate(drows, flow)
    }
}
