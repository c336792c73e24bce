import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, K choices per token, R routed rows, D model width, V vocabulary.

@Suite struct `Routed rows` {
    static let sizes = [(1, 1, 1), (3, 2, 17), (17, 1, 100), (100, 4, 33), (257, 2, 64)]
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: sizes, floatingTypes)
    func `are gathered by index, scaled or not`(size: (rows: Int, choices: Int, width: Int), dtype: DType) throws {
        let (rows, _, width) = size
        let x = try backend.random(20, width, dtype: dtype, seed: 1, rowPadding: 3)
        var generator = SeededGenerator(seed: 2)
        let picks = (0..<rows).map { _ in Int.random(in: -1..<20, using: &generator) }
        let index = try backend.allocator.integers(picks)
        let scale = try backend.random(rows, seed: 3)
        for factors in [nil, scale] {
            let y = try backend.sentinel(rows, width, dtype: dtype, rowPadding: 1)
            try backend.gatherRows(x, index: index, scale: factors, into: y)
            let (source, scales) = (x.doubles, factors?.doubles)
            let expected = (0..<rows * width).map { element -> Double in
                let row = element / width
                return picks[row] < 0 ? 0 : (scales?[row] ?? 1) * source[picks[row] * width + element % width]
            }
            expectClose(y, expected, "gather \(size) \(dtype)")
        }
    }

    @Test(arguments: sizes, floatingTypes)
    func `are combined by weight, forward and backward`(size: (tokens: Int, choices: Int, width: Int), dtype: DType)
        throws
    {
        let (tokens, choices, width) = size
        let slots = tokens * choices
        var generator = SeededGenerator(seed: 4)
        // Slots go to distinct rows; every fifth has none.
        let rowOfSlot = (0..<slots).shuffled(using: &generator).enumerated().map { $0 % 5 == 4 ? -1 : $1 }
        let slotToRow = try backend.allocator.integers(rowOfSlot)
        let rows = try backend.random(slots, width, dtype: dtype, seed: 1, rowPadding: 2)
        let weights = try backend.random(tokens, choices, seed: 2)
        let dy = try backend.random(tokens, width, dtype: dtype, seed: 5, rowPadding: 1)
        let (values, slopes) = (rows.doubles, dy.doubles)
        for factors in [nil, weights] {
            let scales = factors?.doubles
            func weight(_ slot: Int) -> Double { scales?[slot] ?? 1 }
            for adds in [false, true] {
                let y = try backend.random(tokens, width, dtype: dtype, seed: 3)
                var expected = adds ? y.doubles : Array(repeating: 0, count: y.count)
                for (slot, row) in rowOfSlot.enumerated() where row >= 0 {
                    for d in 0..<width {
                        expected[slot / choices * width + d] += weight(slot) * values[row * width + d]
                    }
                }
                try backend.combineRows(
                    rows, slotToRow: slotToRow, weights: factors, choices: choices, into: y, adds: adds)
                expectClose(y, expected, "combine \(size) \(dtype), adds \(adds)")
            }
            let drows = try backend.sentinel(slots, width, dtype: dtype)
            let dweights = try backend.sentinel(tokens, choices)
            var (expectedRows, expectedWeights) = (drows.doubles, Array(repeating: 0.0, count: slots))
            for (slot, row) in rowOfSlot.enumerated() where row >= 0 {
                for d in 0..<width {
                    let slope = slopes[slot / choices * width + d]
                    expectedRows[row * width + d] = weight(slot) * slope
                    expectedWeights[slot] += values[row * width + d] * slope
                }
            }
            try backend.combineRowsBackward(
                dy, rows: rows, slotToRow: slotToRow, weights: factors, choices: choices, drows: drows,
                dweights: dweights)
            expectClose(drows, expectedRows, "gradient of rows \(size) \(dtype)")
            expectClose(dweights, expectedWeights, "gradient of weights \(size) \(dtype)")
            let alone = try backend.sentinel(tokens, choices)
            try backend.combineRowsBackward(
                dy, rows: rows, slotToRow: slotToRow, weights: factors, choices: choices, drows: nil, dweights: alone)
            expectSameBits(alone, dweights, "gradient of weights alone")
        }
    }

    @Test(arguments: floatingTypes)
    func `do not depend on the number of threads`(dtype: DType) throws {
        try expectSameBitsForAnyThreadCount("combine") { backend in
            let rows = try backend.random(1000, 64, dtype: dtype, seed: 1)
            let slots = try backend.allocator.integers((0..<1000).map { ($0 * 7) % 1000 })
            let weights = try backend.random(500, 2, seed: 2)
            let y = try backend.empty(Shape(500, 64), dtype)
            try backend.combineRows(rows, slotToRow: slots, weights: weights, choices: 2, into: y, adds: false)
            return [y]
        }
    }
}

@Suite struct `Embeddings` {
    let backend = CPUBackend(threadCount: 2)

    @Test(
        arguments: [(1, 1, 1), (17, 5, 33), (300, 200, 20)], [(DType.f32, DType.f32), (.bf16, .f32), (.bf16, .bf16)])
    func `look rows up, and add each token's gradient to its row`(
        size: (tokens: Int, vocabulary: Int, width: Int), types: (values: DType, gradient: DType)
    ) throws {
        let (tokens, vocabulary, width) = size
        var generator = SeededGenerator(seed: 1)
        let ids = (0..<tokens).map { _ in Int.random(in: 0..<vocabulary, using: &generator) }
        let index = try backend.allocator.integers(ids)
        let table = try backend.random(vocabulary, width, dtype: types.values, seed: 2)
        let y = try backend.empty(Shape(tokens, width), types.values)
        try backend.embed(index, table: table, into: y)
        let rows = table.floats()
        #expect(y.floats() == ids.flatMap { rows[$0 * width..<($0 + 1) * width] })
        let dy = try backend.random(tokens, width, dtype: types.values, seed: 3)
        let gradient = try backend.random(vocabulary, width, dtype: types.gradient, seed: 4)
        let slopes = dy.doubles
        var expected = gradient.doubles
        for (token, id) in ids.enumerated() {
            for d in 0..<width { expected[id * width + d] += slopes[token * width + d] }
        }
        try backend.embedBackward(dy, tokens: index, into: gradient)
        expectClose(gradient, expected, "gradient \(size)")
    }

    @Test func `sum a token's gradients in the same order for any number of threads`() throws {
        try expectSameBitsForAnyThreadCount("embedding") { backend in
            let ids = try backend.allocator.integers((0..<2000).map { ($0 * $0) % 300 })
            let gradient = try backend.zeros(Shape(300, 40), .f32)
            try backend.embedBackward(try backend.random(2000, 40, seed: 1), tokens: ids, into: gradient)
            return [gradient]
        }
    }
}
