import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: R dense rows, b rows and columns of a block, N block columns, Q the dense extent, E matrices of a stack.

/// Each product against sums over the blocks that are there, in double precision.
@Suite struct BlockSparseTests {
    /// A pattern of blocks: of experts, of the paper's figure, and of no order at all.
    struct Pattern: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let rows: [[Int]]
        let columns: Int
        let starts: [Int]
        /// Block columns of one matrix of a stack.
        let stackBlocks: Int

        static let all = [
            Pattern(
                testDescription: "experts", rows: [[0, 1], [0, 1], [4, 5], [4, 5], [6, 7]], columns: 8,
                starts: [0, 8, 13, 21, 26, 34], stackBlocks: 2),
            Pattern(
                testDescription: "the paper's", rows: [[0], [2], [], [], [0, 3], [2]], columns: 4,
                starts: [0, 8, 16, 24, 32, 40, 48], stackBlocks: 1),
            Pattern(
                testDescription: "ragged in the middle",
                rows: [[1, 2, 4, 5], [1, 2, 4, 5], [1, 2, 4, 5], [0, 5], [], [2, 3]], columns: 6,
                starts: [3, 11, 14, 22, 30, 30, 31], stackBlocks: 3),
            Pattern(testDescription: "empty", rows: [], columns: 4, starts: [0], stackBlocks: 2),
            Pattern(
                testDescription: "dense", rows: Array(repeating: Array(0..<4), count: 5), columns: 4,
                starts: [0, 8, 16, 24, 32, 40], stackBlocks: 4),
        ]
    }

    private static let block = 8
    private let backend = CPUBackend(threadCount: 3)

    /// The operands of one product, and S as a dense matrix.
    private struct Case {
        let topology: BlockTopology
        let rowCount: Int
        let columnCount: Int
        let pattern: Pattern

        init(_ pattern: Pattern, _ backend: CPUBackend) throws {
            self.pattern = pattern
            topology = try BlockTopology(
                rows: pattern.rows, blockColumns: pattern.columns, blockSize: block, starts: pattern.starts,
                on: backend)
            rowCount = (pattern.starts.last ?? 0) + 2
            columnCount = pattern.columns * block
        }

        /// Calls `body` with dense row, column and place in the values, of every element that is there.
        func visit(_ body: (_ row: Int, _ column: Int, _ place: Int) -> Void) {
            var first = 0
            for (index, list) in pattern.rows.enumerated() {
                for row in pattern.starts[index]..<pattern.starts[index + 1] {
                    for (place, column) in list.enumerated() {
                        for inner in 0..<block {
                            body(
                                row, column * block + inner,
                                first + (row - pattern.starts[index]) * list.count * block + place * block + inner)
                        }
                    }
                }
                first += list.count * block * block
            }
        }

        /// (R, N b) with zeros where there is no block.
        func dense(_ values: Tensor) -> [Double] {
            var result = Array(repeating: 0.0, count: rowCount * columnCount)
            let source = values.doubles
            visit { row, column, place in result[row * columnCount + column] = source[place] }
            return result
        }
    }

    /// A stack and the (N b, Q) that it stands for.
    private func stack(
        _ given: Case, _ q: Int, transposed: Bool, _ dtype: DType, seed: UInt64
    ) throws -> (stack: BlockStack, dense: [Double]) {
        let extent = given.pattern.stackBlocks * Self.block
        let count = given.columnCount / extent
        let tensor = try backend.allocator.random(
            transposed ? Shape(count, q, extent) : Shape(count, extent, q), dtype, seed: seed)
        return (BlockStack(tensor, transposed: transposed), unstack(tensor, q, extent, transposed))
    }

    private func unstack(_ tensor: Tensor, _ q: Int, _ extent: Int, _ transposed: Bool) -> [Double] {
        let values = tensor.doubles
        guard transposed else { return values }
        return values.indices.map { index in
            let (column, x) = (index / q, index % q)
            return values[(column / extent * q + x) * extent + column % extent]
        }
    }

    @Test(arguments: Pattern.all, [DType.f32, .bf16])
    func `SDD`(_ pattern: Pattern, _ dtype: DType) throws {
        let given = try Case(pattern, backend)
        for (q, transposed, gathers) in [(13, false, false), (16, true, false), (40, true, true), (7, false, true)] {
            let (b, dense) = try stack(given, q, transposed: transposed, dtype, seed: 2)
            let a = try backend.allocator.random(Shape(given.rowCount, q), dtype, seed: 1)
            let index = (0..<given.rowCount).map { gathers ? ($0 * 7) % given.rowCount : $0 }
            let values = try backend.empty(Shape(given.topology.valueCount), dtype)
            backend.fill(values, with: 9)
            let rows = gathers ? try backend.allocator.integers(index) : nil
            try backend.sdd(Matrix(a, rows: rows), b, topology: given.topology, into: values)
            var expected = Array(repeating: 0.0, count: given.topology.valueCount)
            let left = a.doubles
            given.visit { row, column, place in
                expected[place] = (0..<q).reduce(0) { $0 + left[index[row] * q + $1] * dense[column * q + $1] }
            }
            expectClose(values, expected, "SDD of \(q), transposed \(transposed)")
        }
    }

    @Test(arguments: Pattern.all, [DType.f32, .bf16])
    func `DSD and DDS^T`(_ pattern: Pattern, _ dtype: DType) throws {
        let given = try Case(pattern, backend)
        let values = try backend.allocator.random(Shape(given.topology.valueCount), dtype, seed: 4)
        let sparse = given.dense(values)
        let covered = (pattern.starts.first ?? 0)..<(pattern.starts.last ?? 0)
        for (q, transposed, adds) in [(13, false, false), (16, true, true), (33, true, false), (5, false, true)] {
            let (b, dense) = try stack(given, q, transposed: transposed, dtype, seed: 2)
            let c = try backend.allocator.random(Shape(given.rowCount, q), dtype, seed: 3)
            let ct = try backend.allocator.random(Shape(q, given.rowCount), dtype, seed: 5)
            var (expected, expectedT) = (c.doubles, ct.doubles)
            for row in covered {
                for x in 0..<q {
                    let sum = (0..<given.columnCount).reduce(0.0) {
                        $0 + sparse[row * given.columnCount + $1] * dense[$1 * q + x]
                    }
                    expected[row * q + x] = sum + (adds ? expected[row * q + x] : 0)
                    let place = x * given.rowCount + row
                    expectedT[place] = sum + (adds ? expectedT[place] : 0)
                }
            }
            try backend.dsd(values, b, topology: given.topology, into: c, adds: adds)
            expectClose(c, expected, "DSD of \(q), transposed \(transposed), adds \(adds)")
            // The same stack is the transpose of what this product takes: (Q, N b).
            try backend.ddst(b, values, topology: given.topology, into: ct, adds: adds)
            expectClose(ct, expectedT, "DDS^T of \(q), transposed \(transposed), adds \(adds)")
        }
    }

    @Test(arguments: Pattern.all, [DType.f32, .bf16])
    func `DS^TD and DDS`(_ pattern: Pattern, _ dtype: DType) throws {
        let given = try Case(pattern, backend)
        let values = try backend.allocator.random(Shape(given.topology.valueCount), dtype, seed: 4)
        let sparse = given.dense(values)
        let extent = pattern.stackBlocks * Self.block
        for (q, transposed, adds) in [(13, false, false), (16, true, true), (33, true, false), (5, false, true)] {
            let b = try backend.allocator.random(Shape(given.rowCount, q), dtype, seed: 1)
            let right = b.doubles
            let (c, before) = try stack(given, q, transposed: transposed, .f32, seed: 6)
            var expected = adds ? before : before.map { _ in 0 }
            for row in 0..<given.rowCount {
                for column in 0..<given.columnCount where sparse[row * given.columnCount + column] != 0 {
                    for x in 0..<q {
                        expected[column * q + x] += sparse[row * given.columnCount + column] * right[row * q + x]
                    }
                }
            }
            let tolerance = dtype == .bf16 ? 1e-4 : 1e-5
            try backend.dstd(values, b.matrix, topology: given.topology, into: c, adds: adds)
            expectClose(
                unstack(c.tensor, q, extent, transposed).map(Float.init), expected, within: tolerance,
                "DS^TD of \(q), transposed \(transposed), adds \(adds)")
            // DDS writes (Q, N b), of which the stack read the other way is the transpose.
            let (ct, _) = try stack(given, q, transposed: transposed, .f32, seed: 6)
            let flipped = BlockStack(ct.tensor, transposed: transposed)
            try backend.dds(b.transpose, values, topology: given.topology, into: flipped, adds: adds)
            expectClose(
                unstack(ct.tensor, q, extent, transposed).map(Float.init), expected, within: tolerance,
                "DDS of \(q), transposed \(transposed), adds \(adds)")
        }
    }
}
