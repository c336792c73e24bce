import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: R routed rows sorted by expert, E experts, N and K the extents of each expert's weight.

@Suite struct `Grouped products` {
    /// First rows of the experts, and the end.
    static let groupings: [[Int]] = [
        [0, 5, 5, 20, 33], [0, 0, 1, 1], [0, 0, 130, 130, 130], [7, 12, 30, 31], [0, 0, 0], [0, 64, 128], [0, 300],
        [3, 3, 4, 90, 91, 91, 200],
    ]
    static let engines = `Products`.engines

    /// One op's operands: rows perhaps picked from a larger matrix by an index.
    struct Operands {
        let x: Tensor
        let rows: Tensor?
        let offsets: Tensor
        let groups: [Range<Int>]
        let rowCount: Int

        init(_ backend: CPUBackend, _ grouping: [Int], width: Int, dtype: DType, gathers: Bool) throws {
            rowCount = grouping[grouping.count - 1] + 4
            offsets = try backend.allocator.integers(grouping)
            groups = zip(grouping, grouping.dropFirst()).map { $0..<$1 }
            if gathers {
                var generator = SeededGenerator(seed: 9)
                x = try backend.random(50, width, dtype: dtype, seed: 1, rowPadding: 3)
                rows = try backend.allocator.integers(
                    (0..<rowCount).map { _ in Int.random(in: 0..<50, using: &generator) })
            } else {
                x = try backend.random(rowCount, width, dtype: dtype, seed: 1, rowPadding: 3)
                rows = nil
            }
        }

        func matrix(_ group: Range<Int>) -> Matrix { rows.map { Matrix(x, rows: $0[group]) } ?? Matrix(x[group]) }
    }

    @Test(arguments: engines, groupings)
    func `multiply each group with its expert's weight`(engine: CPUBackend.ProductEngine, grouping: [Int]) throws {
        let backend = CPUBackend(threadCount: 2, productEngine: engine)
        let experts = grouping.count - 1
        for (n, k) in [(17, 33), (100, 64), (65, 130)] {
            for dtype in floatingTypes {
                for (transposed, gathers) in [(true, false), (true, true), (false, false), (false, true)] {
                    let operands = try Operands(backend, grouping, width: k, dtype: dtype, gathers: gathers)
                    let weights = try backend.random(
                        experts, transposed ? n : k, transposed ? k : n, dtype: dtype, seed: 2)
                    let out = try backend.sentinel(operands.rowCount, n, dtype: dtype, rowPadding: 2)
                    var expected = out.doubles
                    for (expert, group) in operands.groups.enumerated() where !group.isEmpty {
                        let weight = weights[expert..<expert + 1].reshaped(weights.shape[1], weights.shape[2])
                        expected.replaceSubrange(
                            group.lowerBound * n..<group.upperBound * n,
                            with: referenceProduct(operands.matrix(group), Matrix(weight, transposed: transposed)))
                    }
                    try backend.groupedMatMul(
                        operands.x, rows: operands.rows, weights: weights, transposed: transposed,
                        offsets: operands.offsets,
                        into: out)
                    let inside = grouping[0] * n..<(grouping.last ?? 0) * n
                    let name =
                        "groups \(grouping), \(n) x \(k), \(dtype), transposed \(transposed), gathered \(gathers)"
                    let values = out.floats()
                    expectClose(
                        Array(values[inside]), Array(expected[inside]), within: Tolerance.relativeNorm(dtype), name)
                    let isOutsideKept = values.indices.allSatisfy { inside.contains($0) || values[$0] == 1024 }
                    #expect(isOutsideKept, "\(name): rows outside of all groups changed")
                }
            }
        }
    }

    @Test(arguments: engines, groupings)
    func `add each expert's weight gradient to what is there`(engine: CPUBackend.ProductEngine, grouping: [Int]) throws
    {
        let backend = CPUBackend(threadCount: 2, productEngine: engine)
        let experts = grouping.count - 1
        for (n, k) in [(17, 33), (130, 64)] {
            for (dtype, gradientType) in [(DType.f32, DType.f32), (.bf16, .f32), (.bf16, .bf16)] {
                for gathers in [false, true] {
                    let operands = try Operands(backend, grouping, width: k, dtype: dtype, gathers: gathers)
                    let dy = try backend.random(operands.rowCount, n, dtype: dtype, seed: 3, rowPadding: 1)
                    let gradient = try backend.random(experts, n, k, dtype: gradientType, seed: 4)
                    var expected = gradient.doubles
                    for (expert, group) in operands.groups.enumerated() where !group.isEmpty {
                        let product = referenceProduct(dy[group].transpose, operands.matrix(group))
                        for index in product.indices { expected[expert * n * k + index] += product[index] }
                    }
                    let title = "gradient of groups \(grouping), \(n) x \(k), \(dtype) into \(gradientType)"
                    let alone = try backend.sentinel(experts, n, k, dtype: gradientType)
                    let old = gradient.doubles
                    for (target, adds) in [(gradient, true), (alone, false)] {
                        try backend.groupedWeightGradient(
                            dy, operands.x, rows: operands.rows, offsets: operands.offsets, into: target, adds: adds)
                    }
                    expectClose(gradient, expected, title)
                    expectClose(alone, zip(expected, old).map { $0 - $1 }, title + " alone")
                }
            }
        }
    }

    @Test(arguments: floatingTypes)
    func `give a token the same bits in any company in a batch-invariant backend`(dtype: DType) throws {
        let backend = CPUBackend(threadCount: 2, batchInvariant: true)
        let x = try backend.random(200, 96, dtype: dtype, seed: 1)
        let weights = try backend.random(3, 70, 96, dtype: dtype, seed: 2)
        let whole = try backend.empty(Shape(200, 70), dtype)
        try backend.groupedMatMul(
            x, rows: nil, weights: weights, transposed: true,
            offsets: try backend.allocator.integers([0, 150, 150, 200]),
            into: whole)
        for row in [0, 7, 149] {
            let alone = try backend.empty(Shape(1, 70), dtype)
            try backend.groupedMatMul(
                x[row..<row + 1], rows: nil, weights: weights, transposed: true,
                offsets: try backend.allocator.integers([0, 1, 1, 1]), into: alone)
            expectSameBits(alone, whole[row..<row + 1], "\(dtype) row \(row)")
        }
    }
}
