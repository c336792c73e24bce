import ApusTensor

// Shape letters: R rows sorted by expert, E experts, b rows and columns of a block, n blocks of an expert, Q the dense
// extent.

extension OpCheck {
    /// Three experts of two blocks of four, the second without rows, none with whole blocks of rows alone.
    private static let offsets = [0, 5, 5, 11]
    private static let block = 4
    private static let width = 8
    private static let rows = 11
    private static let q = 19

    static let blockSparse: [[OpCheck]] = [
        make("block topology", [.f32]) { probe in
            let found = try probe.backend.blockTopology(
                offsets: probe.put(offsets, offsets.count), rowBound: rows, blocksPerExpert: width / block,
                blockSize: block)
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
            let (a, b) = (try probe.draw(rows, q), try probe.draw(3, width, q))
            let topology = try topology(probe)
            let values = try probe.empty(topology.valueCount)
            try probe.backend.sdd(a.tensor.matrix, BlockStack(b.tensor), topology: topology, into: values)
            var expected = Array(repeating: 0.0, count: topology.valueCount)
            visit { row, column, place in
                expected[place] = (0..<q).reduce(0) { $0 + a.values[row * q + $1] * b.values[column * q + $1] }
            }
            probe.expect(values, expected)
        },
        make("block-sparse dsd, dds^t") { probe in
            let topology = try topology(probe)
            let (values, b) = (try probe.draw(topology.valueCount), try probe.draw(3, width, q))
            let (c, ct) = (try probe.draw(rows, q), try probe.draw(q, rows))
            var (expected, expectedT) = (c.values, ct.values)
            visit { row, column, place in
                for x in 0..<q {
                    let term = values.values[place] * b.values[column * q + x]
                    expected[row * q + x] += term
                    expectedT[x * rows + row] += term
                }
            }
            try probe.backend.dsd(values.tensor, BlockStack(b.tensor), topology: topology, into: c.tensor, adds: true)
            probe.expect(c.tensor, expected)
            try probe.backend.ddst(BlockStack(b.tensor), values.tensor, topology: topology, into: ct.tensor, adds: true)
            probe.expect(ct.tensor, expectedT)
        },
        make("block-sparse ds^td, dds") { probe in
            let topology = try topology(probe)
            let (values, b) = (try probe.draw(topology.valueCount), try probe.draw(rows, q))
            let c = try probe.draw(3, width, q, dtype: .f32)
            let ct = try probe.draw(3, q, width, dtype: .f32)
            var (expected, expectedT) = (c.values, ct.values)
            visit { row, column, place in
                for x in 0..<q {
                    let term = values.values[place] * b.values[row * q + x]
                    expected[column * q + x] += term
                    expectedT[(column / width * q + x) * width + column % width] += term
                }
            }
            try probe.backend.dstd(
                values.tensor, b.tensor.matrix, topology: topology, into: BlockStack(c.tensor), adds: true)
            probe.expect(c.tensor, expected)
            try probe.backend.dds(
                b.tensor.transpose, values.tensor, topology: topology, into: BlockStack(ct.tensor, transposed: true),
                adds: true)
            probe.expect(ct.tensor, expectedT)
        },
    ]

    /// Made on the host, so that what is checked is the product alone.
    private static func topology(_ probe: CheckProbe) throws -> BlockTopology {
        try BlockTopology(
            rows: [[0, 1], [0, 1], [4, 5], [4, 5]], blockColumns: 6, blockSize: block, starts: [0, 4, 5, 9, 11],
            on: probe.backend)
    }

    /// Dense row, column and place in the values, of every element that is there.
    private static func visit(_ body: (_ row: Int, _ column: Int, _ place: Int) -> Void) {
        var first = 0
        for expert in 0..<3 {
            for start in stride(from: offsets[expert], to: offsets[expert + 1], by: block) {
                for row in start..<min(start + block, offsets[expert + 1]) {
                    for inner in 0..<width {
                        body(row, expert * width + inner, first + (row - start) * width + inner)
                    }
                }
                first += block * width
            }
        }
    }
}
