public import ApusTensor
import CApusKernels

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// A matrix as an operand of a product: a tensor, perhaps transposed, perhaps with its stored rows picked by an index.
public struct Matrix: Sendable {
    /// The stored matrix, two-dimensional.
    public let tensor: Tensor
    /// Whether the operand is the transpose of what is stored.
    public let isTransposed: Bool
    /// Optional `i32` index: stored row `i` is `tensor[rows[i]]`.
    public let rows: Tensor?

    /// A stored matrix as an operand.
    public init(_ tensor: Tensor, transposed: Bool = false, rows: Tensor? = nil) {
        precondition(tensor.shape.rank == 2, "a matrix has two dimensions, not \(tensor.shape)")
        self.tensor = tensor
        isTransposed = transposed
        self.rows = rows
    }

    /// Waits for work elsewhere that completes what it reads.
    func waitUntilReady() throws {
        try tensor.waitUntilReady()
        try rows?.waitUntilReady()
    }

    /// Stored rows after the index.
    var storedRows: Int { rows?.count ?? tensor.shape[0] }
    /// Rows of the operand.
    public var rowCount: Int { isTransposed ? tensor.shape[1] : storedRows }
    /// Columns of the operand.
    public var columnCount: Int { isTransposed ? storedRows : tensor.shape[1] }
}

extension Tensor {
    /// This tensor as an operand.
    public var matrix: Matrix { Matrix(self) }
    /// The transpose of this tensor as an operand; nothing moves.
    public var transpose: Matrix { Matrix(self, transposed: true) }
}

/// Dense matrix products.
public protocol MatMulOp {
    /// `c = alpha * op(a) op(b) + beta * c`, with `a` (M, K), `b` (K, N), `c` (M, N); sums run in f32.
    ///
    /// The three forms of a linear layer with weight `w` (out, in): forward `x * w.transpose`, data gradient `dy * w`,
    /// weight gradient `dy.transpose * x` with beta 1. With beta 0 the old `c` is not read.
    func matMul(_ a: Matrix, _ b: Matrix, into c: Tensor, alpha: Float, beta: Float) throws
    /// `c = op(a) op(b) + bias`, with `bias` (N) added to every row.
    func matMul(_ a: Matrix, _ b: Matrix, bias: Tensor, into c: Tensor) throws
}

extension MatMulOp where Self: ElementwiseOp {
    /// The product, then the bias in a pass of its own.
    public func matMul(_ a: Matrix, _ b: Matrix, bias: Tensor, into c: Tensor) throws {
        try matMul(a, b, into: c)
        try addBias(c, bias: bias, into: c)
    }
}

extension MatMulOp {
    /// `c = op(a) op(b)`.
    public func matMul(_ a: Matrix, _ b: Matrix, into c: Tensor) throws {
        try matMul(a, b, into: c, alpha: 1, beta: 0)
    }

    /// `c += op(a) op(b)` when `adds`, else `c = op(a) op(b)`.
    public func matMul(_ a: Matrix, _ b: Matrix, into c: Tensor, adds: Bool) throws {
        try matMul(a, b, into: c, alpha: 1, beta: adds ? 1 : 0)
    }
}

extension CPUBackend: MatMulOp {
    public func matMul(_ a: Matrix, _ b: Matrix, into c: Tensor, alpha: Float, beta: Float) throws {
        let m = a.rowCount
        let n = b.columnCount
        precondition(
            a.columnCount == b.rowCount && c.shape == Shape(m, n),
            "(\(m), \(a.columnCount)) x (\(b.rowCount), \(n)) into \(c.shape)")
        try a.waitUntilReady()
        try b.waitUntilReady()
        if beta != 0 { try c.waitUntilReady() }
        var queue = ProductQueue(self)
        queue.add(Product(a, b, into: c, alpha: alpha, beta: beta, isBatchInvariant: isBatchInvariant))
        try queue.run()
    }
}

/// A product as the C kernels take it, and its cuts into blocks of C.
struct Product {
    var arguments: apus_gemm_args
    private let elementSizes: (a: Int, b: Int, c: Int)

    init(_ a: Matrix, _ b: Matrix, into c: Tensor, alpha: Float = 1, beta: Float = 0, isBatchInvariant: Bool) {
        arguments = apus_gemm_args()
        arguments.m = a.rowCount
        arguments.n = b.columnCount
        arguments.k = a.columnCount
        arguments.a = UnsafeRawPointer(a.tensor.rawPointer)
        arguments.lda = a.tensor.rowStride
        arguments.a_rows = a.rows.map { UnsafePointer($0.pointer(to: Int32.self)) }
        arguments.a_type = a.tensor.kernelType
        arguments.a_transposed = a.isTransposed ? 1 : 0
        arguments.b = UnsafeRawPointer(b.tensor.rawPointer)
        arguments.ldb = b.tensor.rowStride
        arguments.b_rows = b.rows.map { UnsafePointer($0.pointer(to: Int32.self)) }
        arguments.b_type = b.tensor.kernelType
        arguments.b_transposed = b.isTransposed ? 1 : 0
        arguments.c = c.rawPointer
        arguments.ldc = c.rowStride
        arguments.c_type = c.kernelType
        arguments.alpha = alpha
        arguments.beta = beta
        arguments.batch_invariant = isBatchInvariant ? 1 : 0
        elementSizes = (a.tensor.dtype.byteCount, b.tensor.dtype.byteCount, c.dtype.byteCount)
    }

    /// Rows of C.
    var rowCount: Int { arguments.m }
    /// Columns of C.
    var columnCount: Int { arguments.n }
    /// The contracted extent.
    var depth: Int { arguments.k }
    /// About how long it takes, in units of a multiply-add: to bring an element of B from memory takes as long as
    /// a dozen.
    var cost: Int { (rowCount + 12) * columnCount * max(depth, 1) }

    /// The rows `range` of C and of op(A).
    func rows(_ range: Range<Int>) -> Product {
        var piece = self
        piece.arguments.m = range.count
        piece.arguments.c += range.lowerBound * arguments.ldc * elementSizes.c
        if arguments.a_transposed != 0 {
            piece.arguments.a += range.lowerBound * elementSizes.a
        } else if let index = arguments.a_rows {
            piece.arguments.a_rows = index + range.lowerBound
        } else {
            piece.arguments.a += range.lowerBound * arguments.lda * elementSizes.a
        }
        return piece
    }

    /// The columns `range` of C and of op(B).
    func columns(_ range: Range<Int>) -> Product {
        var piece = self
        piece.arguments.n = range.count
        piece.arguments.c += range.lowerBound * elementSizes.c
        if arguments.b_transposed == 0 {
            piece.arguments.b += range.lowerBound * elementSizes.b
        } else if let index = arguments.b_rows {
            piece.arguments.b_rows = index + range.lowerBound
        } else {
            piece.arguments.b += range.lowerBound * arguments.ldb * elementSizes.b
        }
        return piece
    }

    /// Computes this product on the calling thread.
    func run(_ engine: apus_gemm_engine, _ scratch: UnsafeMutableRawPointer) {
        var arguments = arguments
        check(apus_gemm(&arguments, engine, scratch))
    }

    /// Bytes of B packed for our own kernels.
    var packedByteCount: Int {
        var arguments = arguments
        return apus_gemm_packed_b_size(&arguments)
    }

    /// Packs the columns `range` of B, which begins on a multiple of 64, to where they belong in the packed whole.
    func pack(_ range: Range<Int>, into packed: UnsafeMutableRawPointer) {
        var arguments = arguments
        check(apus_gemm_pack_b_columns(&arguments, range.lowerBound, range.count, packed))
    }

    /// Computes this product with our own kernels from a packed B.
    func run(packed: UnsafeRawPointer, _ scratch: UnsafeMutableRawPointer) {
        var arguments = arguments
        check(apus_gemm_with_packed_b(&arguments, packed, scratch))
    }

    private func check(_ status: Int32) {
        precondition(status == APUS_GEMM_OK, "the product kernel refused \(arguments): status \(status)")
    }
}

extension CPUBackend.ProductEngine {
    /// The engine of a whole product, which all its pieces are computed by: the one asked for where it can compute the
    /// product, else our own, which can compute all. `APUS_GEMM_AUTO` stands for oneDNN with our own in reserve.
    func kernelEngine(for arguments: apus_gemm_args) -> apus_gemm_engine {
        var arguments = arguments
        return switch self {
        case .automatic: apus_gemm_choose(&arguments) == APUS_GEMM_ONEDNN ? APUS_GEMM_AUTO : APUS_GEMM_OWN
        case .own: APUS_GEMM_OWN
        case .oneDNN: apus_onednn_supports(&arguments) != 0 ? APUS_GEMM_ONEDNN : APUS_GEMM_OWN
        }
    }
}
