import ApusTensor

/// A kind of product as cuBLASLt sees it: all that its choice of an algorithm depends on. Stored by columns.
struct ProductPlan: Hashable, Sendable {
    /// A matrix as it is stored.
    struct Operand: Hashable, Sendable {
        let rows: Int
        let columns: Int
        /// Elements between columns.
        let stride: Int
        let type: DType
        /// Bytes that its address is a multiple of, 256 at most.
        let alignment: Int
        var isTransposed = false
    }

    let a: Operand
    let b: Operand
    let d: Operand
    /// Whether an element for each row of `d` is added to the row.
    var addsBias = false
}

extension ProductPlan.Operand {
    /// A row-major matrix, which is its transpose when read by columns.
    init(rowMajor tensor: Tensor, isTransposed: Bool = false) {
        rows = tensor.shape[1]
        columns = tensor.shape[0]
        // A single row may have any stride, but no smaller one than its width.
        stride = max(tensor.rowStride, tensor.shape[1], 1)
        type = tensor.dtype
        alignment = min(1 << tensor.address.trailingZeroBitCount, 256)
        self.isTransposed = isTransposed
    }
}

extension ProductPlan: CustomStringConvertible {
    /// For messages.
    var description: String {
        func text(_ x: Operand) -> String {
            "(\(x.rows), \(x.columns)) \(x.type) by \(x.stride)\(x.isTransposed ? " transposed" : "")"
        }
        return "\(text(a)) x \(text(b))\(addsBias ? " and a bias" : "") into \(text(d))"
    }
}
