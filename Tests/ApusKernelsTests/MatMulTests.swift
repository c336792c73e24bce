import ApusKernels
import ApusTensor
import ApusTestSupport
import CApusKernels
import Testing

// Shape letters: M rows, N columns, K the contracted extent of a product.

/// Operand and result types of a product.
struct ProductTypes: CustomTestStringConvertible {
    let a: DType, b: DType, c: DType
    var testDescription: String { "\(a) x \(b) to \(c)" }
    /// A product of mixed types may round the wider operand to the narrower.
    var tolerance: Double { a == b ? Tolerance.relativeNorm(c) : Tolerance.relativeNorm(.bf16) }

    static let all = [
        ProductTypes(a: .f32, b: .f32, c: .f32), ProductTypes(a: .bf16, b: .bf16, c: .f32),
        ProductTypes(a: .bf16, b: .bf16, c: .bf16), ProductTypes(a: .f32, b: .bf16, c: .f32),
        ProductTypes(a: .bf16, b: .f32, c: .f32), ProductTypes(a: .f32, b: .f32, c: .bf16),
    ]
}

/// M, N, K.
let productSizes = [
    (1, 1, 1), (3, 17, 100), (17, 257, 3), (100, 3, 17), (257, 100, 130), (1, 257, 100), (257, 1, 33), (64, 64, 64),
    (31, 48, 520),
]

/// Checks one product against its definition, with strided operands.
func checkProduct(
    _ backend: CPUBackend, _ size: (m: Int, n: Int, k: Int), transposing: (a: Bool, b: Bool), _ types: ProductTypes,
    alpha: Float = 1, beta: Float = 0, gathers: (a: Bool, b: Bool) = (false, false)
) throws {
    let (m, n, k) = size
    func operand(_ rows: Int, _ columns: Int, _ transposes: Bool, _ gathers: Bool, _ type: DType, _ seed: UInt64) throws
        -> Matrix
    {
        let (storedRows, width) = transposes ? (columns, rows) : (rows, columns)
        guard gathers else {
            return Matrix(
                try backend.random(storedRows, width, dtype: type, seed: seed, rowPadding: 5), transposed: transposes)
        }
        let table = try backend.random(storedRows + 7, width, dtype: type, seed: seed, rowPadding: 3)
        var generator = SeededGenerator(seed: seed)
        let picks = (0..<storedRows).map { _ in Int.random(in: 0..<storedRows + 7, using: &generator) }
        return Matrix(table, transposed: transposes, rows: try backend.allocator.integers(picks))
    }
    let a = try operand(m, k, transposing.a, gathers.a, types.a, 1)
    let b = try operand(k, n, transposing.b, gathers.b, types.b, 2)
    let c = try backend.random(m, n, dtype: types.c, seed: 3, rowPadding: 2)
    if beta == 0 { c.assignNaN() }
    let expected = referenceProduct(a, b, c: c.doubles, alpha: Double(alpha), beta: Double(beta))
    try backend.matMul(a, b, into: c, alpha: alpha, beta: beta)
    expectClose(
        c, expected, within: types.tolerance,
        "\(m) x \(n) x \(k), \(types.testDescription), transposed \(transposing), gathered \(gathers), "
            + "alpha \(alpha), beta \(beta)"
    )
}

extension Tensor {
    /// Fills a floating tensor with NaN: what beta 0 must not read.
    func assignNaN() {
        if dtype == .f32 {
            assign(Array(repeating: Float.nan, count: count))
        } else {
            assign(Array(repeating: UInt16(0x7fc0), count: count))
        }
    }
}

@Suite struct `Products` {
    static let engines: [CPUBackend.ProductEngine] = hasOneDNN ? CPUBackend.ProductEngine.allCases : [.automatic, .own]

    @Test(arguments: engines, [(false, false), (false, true), (true, false), (true, true)])
    func `of every layout equal their definition`(engine: CPUBackend.ProductEngine, transposing: (Bool, Bool)) throws {
        let backend = CPUBackend(threadCount: 2, productEngine: engine)
        for size in productSizes {
            for types in ProductTypes.all { try checkProduct(backend, size, transposing: transposing, types) }
        }
    }

    @Test(.enabled(if: hasOneDNN, "oneDNN is not available: its engine runs as the project's own kernel"))
    func `by oneDNN are computed by oneDNN`() throws {
        var arguments = apus_gemm_args()
        (arguments.m, arguments.n, arguments.k) = (64, 64, 64)
        (arguments.lda, arguments.ldb, arguments.ldc) = (64, 64, 64)
        (arguments.alpha, arguments.beta) = (1, 0)
        (arguments.a_type, arguments.b_type, arguments.c_type) = (APUS_F32, APUS_F32, APUS_F32)
        #expect(apus_onednn_supports(&arguments) != 0)
    }

    @Test(arguments: engines, [(1, 1), (2, 0), (0.5, 1), (-1, 0.25)] as [(Float, Float)])
    func `are scaled and accumulated`(engine: CPUBackend.ProductEngine, factors: (alpha: Float, beta: Float)) throws {
        let backend = CPUBackend(threadCount: 2, productEngine: engine)
        for transposing in [(false, false), (false, true), (true, false)] {
            for types in ProductTypes.all {
                try checkProduct(
                    backend, (33, 100, 70), transposing: transposing, types, alpha: factors.alpha, beta: factors.beta)
            }
        }
    }

    @Test(arguments: engines, [(true, false), (false, true), (true, true)])
    func `pick rows of either operand by an index`(engine: CPUBackend.ProductEngine, gathers: (Bool, Bool)) throws {
        let backend = CPUBackend(threadCount: 2, productEngine: engine)
        for transposing in [(false, false), (false, true), (true, false), (true, true)] {
            for size in [(3, 17, 20), (100, 33, 64), (20, 130, 257)] {
                for types in ProductTypes.all.prefix(3) {
                    try checkProduct(backend, size, transposing: transposing, types, beta: 1, gathers: gathers)
                }
            }
        }
    }

    @Test(arguments: CPUBackend.ProductEngine.allCases)
    func `of nothing are nothing, and of no depth are zero`(engine: CPUBackend.ProductEngine) throws {
        let backend = CPUBackend(threadCount: 2, productEngine: engine)
        let c = try backend.sentinel(3, 5)
        try backend.matMul(
            try backend.empty(Shape(3, 0), .f32).matrix, try backend.empty(Shape(0, 5), .f32).matrix, into: c)
        #expect(c.floats().allSatisfy { $0 == 0 })
        try backend.matMul(
            try backend.empty(Shape(0, 4), .f32).matrix, try backend.random(4, 5, seed: 1).matrix,
            into: try backend.empty(Shape(0, 5), .f32))
    }

    @Test func `of mismatched extents are refused`() async {
        await #expect(processExitsWith: .failure) {
            let backend = CPUBackend(threadCount: 1)
            try backend.matMul(
                try backend.zeros(Shape(2, 3), .f32).matrix, try backend.zeros(Shape(4, 5), .f32).matrix,
                into: try backend.zeros(Shape(2, 5), .f32))
        }
    }

    @Test(arguments: availableLevels)
    func `are right at every instruction set`(level: UInt32) async {
        await #expect(processExitsWith: .success) { [level] in
            apus_cpu_limit(apus_cpu_level(rawValue: level))
            let backend = CPUBackend(threadCount: 2, productEngine: .own)
            for size in [(3, 17, 100), (17, 97, 3), (1, 100, 33), (49, 33, 300)] {
                for transposing in [(false, false), (false, true), (true, false), (true, true)] {
                    for types in ProductTypes.all {
                        try checkProduct(backend, size, transposing: transposing, types, beta: 1)
                    }
                }
            }
            try checkProduct(
                backend, (40, 33, 50), transposing: (true, false), ProductTypes.all[1], gathers: (true, true))
            try checkBatchInvariantProducts()
        }
    }

    @Test func `have the same bits for any batch in a batch-invariant backend`() throws {
        try checkBatchInvariantProducts()
    }

    @Test(arguments: floatingTypes)
    func `do not depend on the number of threads in a batch-invariant backend`(dtype: DType) throws {
        for (m, n) in [(100, 64), (3, 300), (257, 1)] {
            try expectSameBitsForAnyThreadCount("\(m) x \(n)", batchInvariant: true) { backend in
                let a = try backend.random(m, 129, dtype: dtype, seed: 1)
                let b = try backend.random(n, 129, dtype: dtype, seed: 2)
                let c = try backend.empty(Shape(m, n), dtype)
                try backend.matMul(a.matrix, b.transpose, into: c)
                return [c]
            }
        }
    }
}

/// Row i of a product has the bits of the same row computed alone, or in any other batch.
func checkBatchInvariantProducts() throws {
    let backend = CPUBackend(threadCount: 2, batchInvariant: true)
    for (n, k) in [(100, 257), (17, 64), (300, 1000)] {
        for dtype in floatingTypes {
            let x = try backend.random(300, k, dtype: dtype, seed: 1)
            let weight = try backend.random(n, k, dtype: dtype, seed: 2)
            let whole = try backend.empty(Shape(300, n), dtype)
            try backend.matMul(x.matrix, weight.transpose, into: whole)
            for rows in [0..<1, 0..<2, 5..<22, 37..<137, 299..<300] {
                let part = try backend.empty(Shape(rows.count, n), dtype)
                try backend.matMul(x[rows].matrix, weight.transpose, into: part)
                expectSameBits(part, whole[rows], "\(dtype) rows \(rows) of 300 x \(n) x \(k)")
            }
        }
    }
}
