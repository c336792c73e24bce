import ApusTensor

// Shape letters: R rows sorted by expert, E experts, b rows and columns of a block, n blocks of an expert, Q the dense
// extent.

extension OpCheck {
    static let blockSparse: [[OpCheck]] = [
        make("block topology", [.f32]) { probe in
            // Three experts of two blocks of four, the second without rows, none with whole blocks of rows alone.
            let offsets = [0, 5, 5, 11]
            let found = try probe.backend.blockTopology(
                offsets: probe.put(offsets, offsets.count), rowBound: 11, blocksPerExpert: 2, blockSize: 4)
            // Where the host knows bounds only, the last block rows are empty.
            let spare = Array(repeating: 0, count: max(found.blockRows - 4, 0))
            probe.expect(found.rowStarts, equals: [0, 4, 5, 9, 11] + spare.map { _ in 11 })
            probe.expect(found.rowOffsets, equals: [0, 2, 4, 6, 8] + spare.map { _ in 8 })
            probe.expect(found.columnIndices[0..<8], equals: [0, 1, 0, 1, 4, 5, 4, 5])
            probe.expect(found.rowIndices[0..<8], equals: [0, 0, 1, 1, 2, 2, 3, 3])
            probe.expect(found.columnOffsets, equals: [0, 2, 4, 4, 4, 6, 8])
            probe.expect(found.transposeIndices[0..<8], equals: [0, 2, 1, 3, 4, 6, 5, 7])
        },
        make("block-sparse sdd") { probe in
            for layout in BlockSparseLayout.all {
                let (q, topology) = (layout.q, try layout.topology(probe))
                let a = try DenseRows(layout, &probe)
                let b = try probe.draw(layout.experts, layout.width, q)
                var expected = Array(repeating: 0.0, count: layout.valueCount)
                layout.visit { row, column, place in
                    expected[place] = (0..<q).reduce(0) { $0 + a.values[row * q + $1] * b.values[column * q + $1] }
                }
                for left in a.forms {
                    for right in try stacks(b, layout, probe) {
                        let values = try probe.empty(topology.valueCount)
                        try probe.backend.sdd(left, right, topology: topology, into: values)
                        probe.expect(values[0..<layout.valueCount], expected)
                    }
                }
            }
        },
        make("block-sparse dsd, dds^t") { probe in
            for layout in BlockSparseLayout.all {
                let (q, topology) = (layout.q, try layout.topology(probe))
                let values = try probe.draw(topology.valueCount)
                let b = try probe.draw(layout.experts, layout.width, q)
                let old = try probe.draw(layout.rows, q)
                var product = Array(repeating: 0.0, count: layout.rows * q)
                layout.visit { row, column, place in
                    for x in 0..<q { product[row * q + x] += values.values[place] * b.values[column * q + x] }
                }
                for stack in try stacks(b, layout, probe) {
                    for adds in [true, false] {
                        let expected = adds ? zip(old.values, product).map(+) : product
                        let c = try result(old.values, Shape(layout.rows, q), probe.dtype, adds: adds, probe)
                        try probe.backend.dsd(values.tensor, stack, topology: topology, into: c, adds: adds)
                        probe.expect(c, expected)
                        let oldT = transposed(old.values, columns: q)
                        let ct = try result(oldT, Shape(q, layout.rows), probe.dtype, adds: adds, probe)
                        try probe.backend.ddst(stack, values.tensor, topology: topology, into: ct, adds: adds)
                        probe.expect(ct, transposed(expected, columns: q))
                    }
                }
            }
        },
        make("block-sparse ds^td, dds") { probe in
            for layout in BlockSparseLayout.all {
                let (q, topology) = (layout.q, try layout.topology(probe))
                let values = try probe.draw(topology.valueCount)
                let b = try DenseRows(layout, &probe)
                let old = try probe.draw(layout.experts, layout.width, q)
                var product = Array(repeating: 0.0, count: old.values.count)
                layout.visit { row, column, place in
                    for x in 0..<q { product[column * q + x] += values.values[place] * b.values[row * q + x] }
                }
                let sum = zip(old.values, product).map(+)
                // As a stack is, and a stack of transposed matrices: what was there, and what is to be there.
                let (oldT, sumT, productT) = (
                    layout.transposedStack(old.values), layout.transposedStack(sum), layout.transposedStack(product)
                )
                for type in probe.gradientTypes {
                    for (form, adds) in b.forms.flatMap({ [($0, true), ($0, false)] }) {
                        let c = try result(old.values, old.tensor.shape, type, adds: adds, probe)
                        try probe.backend.dstd(
                            values.tensor, form, topology: topology, into: BlockStack(c), adds: adds)
                        probe.expect(c, adds ? sum : product)
                        let ct = try result(
                            oldT, Shape(layout.experts, q, layout.width), type, adds: adds, probe)
                        let a = Matrix(form.tensor, transposed: !form.isTransposed, rows: form.rows)
                        try probe.backend.dds(
                            a, values.tensor, topology: topology, into: BlockStack(ct, transposed: true), adds: adds)
                        probe.expect(ct, adds ? sumT : productT)
                    }
                }
            }
        },
    ]

    /// A stack (E, n b, Q) as it is drawn, and stored as transposed matrices.
    private static func stacks(
        _ b: CheckOperand, _ layout: BlockSparseLayout, _ probe: CheckProbe
    ) throws -> [BlockStack] {
        let shape = Shape(layout.experts, layout.q, layout.width)
        let other = try probe.put(layout.transposedStack(b.values), shape, probe.dtype)
        return [BlockStack(b.tensor), BlockStack(other.tensor, transposed: true)]
    }

    /// What a product adds to, or else writes over.
    private static func result(
        _ old: [Double], _ shape: Shape, _ dtype: DType, adds: Bool, _ probe: CheckProbe
    ) throws -> Tensor {
        try probe.put(adds ? old : old.map { _ in Double.nan }, shape, dtype).tensor
    }
}

/// A dense matrix (R, Q) in the forms that a product takes it in.
private struct DenseRows {
    let values: [Double]
    /// Rows picked by an index, as they stand, and stored transposed.
    let forms: [Matrix]

    init(_ layout: BlockSparseLayout, _ probe: inout CheckProbe) throws {
        let (rows, q) = (layout.rows, layout.q)
        let source = try probe.draw(rows + 2, q)
        let index = (0..<rows).map { _ in probe.integer(below: rows + 2) }
        let values = index.flatMap { source.values[$0 * q..<($0 + 1) * q] }
        let plain = try probe.put(values, Shape(rows, q), probe.dtype)
        let other = try probe.put(transposed(values, columns: q), Shape(q, rows), probe.dtype)
        self.values = values
        forms = [
            Matrix(source.tensor, rows: try probe.put(index, rows)), plain.tensor.matrix, other.tensor.transpose,
        ]
    }
}
