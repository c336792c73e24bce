import ApusKernels
import ApusTensor

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// Products with an `f32` operand on the tensor cores: the operand as a sum of `bf16` ones (`Kernels/parts.cu`).
///
/// Routers compute in `f32` from tokens in `bf16`. As plain `f32` products those take a fifth of a layer's time on an H100,
/// where the tensor cores are fifteen times as fast; in three parts they are as exact, for products of `bf16` are exact in
/// `f32` and the sums are `f32`.
extension CUDABackend {
    /// Fewer multiplications than this are not worth the splitting.
    private static var fewest: Int { 1 << 27 }
    /// The parts' outer extent is that of the whole three times, and a result of the parts as large.
    private static var widest: Int { 1024 }

    /// Multiplies in parts where that is exact and worth while; `false` when it has done nothing.
    func multiplyInParts(
        _ a: Tensor, _ aTransposed: Bool, _ b: Tensor, _ bTransposed: Bool, into c: Tensor, alpha: Float, beta: Float
    ) throws -> Bool {
        let (m, n, k) = (c.shape[0], c.shape[1], a.shape[aTransposed ? 0 : 1])
        guard alpha == 1, beta == 0 || beta == 1, m * n * k >= CUDABackend.fewest, min(m, n, k) % 8 == 0 else {
            return false
        }
        switch (a.dtype, b.dtype, c.dtype) {
        case (.bf16, .f32, .f32) where n <= CUDABackend.widest:
            let parts = try split(b, alongRows: bTransposed)
            let product = try empty(Shape(m, 3 * n), .f32, .workspace)
            try multiply(a, aTransposed, parts, bTransposed, into: product, alpha: 1, beta: 0)
            try sumParts(product, partStride: n, into: c, adds: beta != 0)
        case (.f32, .bf16, .f32) where m <= CUDABackend.widest:
            let parts = try split(a, alongRows: !aTransposed)
            let product = try empty(Shape(3 * m, n), .f32, .workspace)
            try multiply(parts, aTransposed, b, bTransposed, into: product, alpha: 1, beta: 0)
            try sumParts(product, partStride: m * n, into: c, adds: beta != 0)
        case (.f32, .f32, .bf16) where k <= CUDABackend.widest:
            // What is rounded to 8 bits needs 16 of its operands: both of a0 b0, a1 b0 and a0 b1 along k.
            let left = try split(a, alongRows: aTransposed, [0, 1, 0])
            let right = try split(b, alongRows: !bTransposed, [0, 0, 1])
            try multiply(left, aTransposed, right, bTransposed, into: c, alpha: 1, beta: beta)
        default: return false
        }
        return true
    }

    /// The parts of a matrix under or beside one another, as `order` names them.
    private func split(_ x: Tensor, alongRows: Bool, _ order: [Int] = [0, 1, 2]) throws -> Tensor {
        let (rows, width) = (x.shape[0], x.shape[1])
        let shape = alongRows ? Shape(order.count * rows, width) : Shape(rows, order.count * width)
        let parts = try empty(shape, .bf16, .workspace)
        let pattern = order.enumerated().reduce(0) { $0 | $1.element << (2 * $1.offset) }
        try launch(
            "split_parts", .narrowRows(rows, width: width), parts, parts.rowStride, alongRows ? rows * width : width, x,
            x.rowStride, rows, width, order.count, pattern)
        return parts
    }

    private func sumParts(_ product: Tensor, partStride: Int, into c: Tensor, adds: Bool) throws {
        let (rows, width) = (c.shape[0], c.shape[1])
        try launch(
            "sum_parts", .narrowRows(rows, width: width), c, c.rowStride, product, product.rowStride, partStride, rows,
            width,
            adds)
    }
}
