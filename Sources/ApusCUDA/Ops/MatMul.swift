public import ApusKernels
public import ApusTensor

// Shape letters: M rows, N columns, K the contracted extent of a product.

extension CUDABackend: MatMulOp {
    public func matMul(_ a: Matrix, _ b: Matrix, into c: Tensor, alpha: Float, beta: Float) throws {
        let (m, n, k) = (a.rowCount, b.columnCount, a.columnCount)
        precondition(k == b.rowCount && c.shape == Shape(m, n), "(\(m), \(k)) x (\(b.rowCount), \(n)) into \(c.shape)")
        guard m > 0 && n > 0 else { return }
        guard k > 0 else { return try multiply(c, by: beta) }
        if isBatchInvariant { return try multiplyInOneOrder(a, b, into: c, alpha: alpha, beta: beta) }
        for tensor in [a.tensor, b.tensor, c] { try wait(for: tensor) }
        let (left, right) = (try stored(a), try stored(b))
        if try multiplyInParts(left, a.isTransposed, right, b.isTransposed, into: c, alpha: alpha, beta: beta) {
            return
        }
        let type = CUDABackend.productType(left, right)
        let (x, y) = (try converted(left, to: type), try converted(right, to: type))
        try into(c, from: type, reads: beta != 0) { c in
            try multiply(x, a.isTransposed, y, b.isTransposed, into: c, alpha: alpha, beta: beta)
        }
    }

    public func matMul(_ a: Matrix, _ b: Matrix, bias: Tensor, into c: Tensor) throws {
        precondition(bias.count == b.columnCount, "a bias of \(bias.count) for \(b.columnCount) columns")
        let types = [a.tensor.dtype, b.tensor.dtype, bias.dtype]
        guard types.allSatisfy({ $0 == c.dtype }), c.count > 0, a.columnCount > 0, bias.address % 16 == 0,
            bias.isContiguous, !isBatchInvariant
        else {
            try matMul(a, b, into: c)
            return try addBias(c, bias: bias, into: c)
        }
        precondition(a.columnCount == b.rowCount && c.shape == Shape(a.rowCount, b.columnCount))
        for tensor in [a.tensor, b.tensor, bias, c] { try wait(for: tensor) }
        try multiply(
            stored(a), a.isTransposed, stored(b), b.isTransposed, bias: bias, into: c, alpha: 1, beta: 0)
    }

    /// What operands are multiplied in: one type for both, `f32` unless both are `bf16`.
    private static func productType(_ a: Tensor, _ b: Tensor) -> DType {
        a.dtype == .bf16 && b.dtype == .bf16 ? .bf16 : .f32
    }

    /// Gives `body` a target of the products' type or of `f32`, and rounds to `c` where that is neither.
    private func into(_ c: Tensor, from type: DType, reads: Bool, _ body: (Tensor) throws -> Void) throws {
        guard c.dtype != type && c.dtype != .f32 else { return try body(c) }
        let wide = try empty(c.shape, .f32, .workspace)
        if reads { try convert(try dense(c), into: wide) }
        try body(wide)
        let result = try empty(c.shape, c.dtype, .workspace)
        try convert(wide, into: result)
        try copy(result, into: c)
    }

    /// The product by our own kernel, whose order of summation does not depend on the sizes.
    private func multiplyInOneOrder(
        _ a: Matrix, _ b: Matrix, into c: Tensor, alpha: Float, beta: Float
    ) throws {
        let type = CUDABackend.productType(a.tensor, b.tensor)
        let (x, y) = (try converted(a.tensor, to: type), try converted(b.tensor, to: type))
        let forms = (a.isTransposed ? "t" : "n") + (b.isTransposed ? "t" : "n")
        try into(c, from: type, reads: beta != 0) { c in
            let blocks = ceilDivide(c.shape[0], 128) * ceilDivide(c.shape[1], 128)
            try launch(
                type == .bf16 ? "matmul_\(forms)_bf16_\(c.suffix)" : "matmul_\(forms)_f32",
                type == .bf16 ? .blocks(blocks, threads: 128, sharedBytes: 98_304) : .blocks(blocks), c, c.rowStride, x,
                x.rowStride, a.rows, y, y.rowStride, b.rows, c.shape[0], c.shape[1], a.columnCount, alpha, beta)
        }
    }

    /// Row-major `c = a b` is `c^T = b^T a^T` by columns, and what is row-major is its transpose by columns.
    func multiply(
        _ a: Tensor, _ aTransposed: Bool, _ b: Tensor, _ bTransposed: Bool, bias: Tensor? = nil, into c: Tensor,
        alpha: Float, beta: Float
    ) throws {
        let plan = ProductPlan(
            a: .init(rowMajor: b, isTransposed: bTransposed), b: .init(rowMajor: a, isTransposed: aTransposed),
            d: .init(rowMajor: c), addsBias: bias != nil)
        try products.multiply(
            plan, a: b.address, b: a.address, d: c.address, bias: bias?.address, alpha: alpha, beta: beta, on: queue,
            allocator: allocator)
    }

    /// The stored matrix with its rows picked.
    private func stored(_ matrix: Matrix) throws -> Tensor {
        guard let rows = matrix.rows else { return matrix.tensor }
        let picked = try empty(Shape(rows.count, matrix.tensor.shape[1]), matrix.tensor.dtype, .workspace)
        try gatherRows(matrix.tensor, index: rows, scale: nil, into: picked)
        return picked
    }

    private func converted(_ tensor: Tensor, to dtype: DType) throws -> Tensor {
        guard tensor.dtype != dtype else { return tensor }
        let result = try empty(tensor.shape, dtype, .workspace)
        try convert(try dense(tensor), into: result)
        return result
    }

    /// The tensor itself, or a dense copy.
    func dense(_ tensor: Tensor) throws -> Tensor {
        guard !tensor.isContiguous else { return tensor }
        let result = try empty(tensor.shape, tensor.dtype, .workspace)
        try copy(tensor, into: result)
        return result
    }

    /// `c = factor * c`; with 0 the old `c` is not read.
    private func multiply(_ c: Tensor, by factor: Float) throws {
        guard factor != 1 else { return }
        let result = try dense(c)
        if factor == 0 { try fill(result, with: 0) } else { try scale(result, by: factor, into: result) }
        if !c.isContiguous { try copy(result, into: c) }
    }
}
