import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, E experts, K choices per token, R routed rows.

@Suite struct `Router arithmetic` {
    static let sizes = [(1, 1), (3, 17), (17, 8), (100, 64), (257, 100)]
    let backend = CPUBackend(threadCount: 2)

    private func softmax(_ x: [Double], _ width: Int) -> [Double] {
        stride(from: 0, to: x.count, by: width).flatMap { begin -> [Double] in
            let row = x[begin..<begin + width]
            let largest = row.max() ?? 0
            let sum = row.reduce(0) { $0 + exp($1 - largest) }
            return row.map { exp($0 - largest) / sum }
        }
    }

    @Test(arguments: sizes)
    func `softmax and its gradient equal their definition`(size: (Int, Int)) throws {
        let (rows, width) = size
        let x = try backend.random(rows, width, seed: 1, scale: 8, rowPadding: 3)
        let y = try backend.sentinel(rows, width)
        try backend.softmax(x, into: y)
        let expected = softmax(x.doubles, width)
        expectClose(y, expected, "softmax")
        let dy = try backend.random(rows, width, seed: 2)
        let slopes = dy.doubles
        let dx = try backend.sentinel(rows, width)
        try backend.softmaxBackward(dy, y: y, into: dx)
        let gradient = expected.indices.map { index -> Double in
            let row = index / width * width..<(index / width + 1) * width
            let mean = row.reduce(0) { $0 + expected[$1] * slopes[$1] }
            return expected[index] * (slopes[index] - mean)
        }
        if width > 1 { expectClose(dx, gradient, "gradient of softmax") }
        try backend.softmaxBackward(dy, y: y, into: dy)
        expectSameBits(dy, dx, "gradient in place")
        let dense = try backend.duplicate(x)
        try backend.softmax(dense, into: dense)
        expectSameBits(dense, y, "softmax in place")
    }

    @Test(arguments: sizes)
    func `sigmoid and log-sum-exp equal their definition`(size: (Int, Int)) throws {
        let (rows, width) = size
        let x = try backend.random(rows, width, seed: 1, scale: 8)
        let y = try backend.sentinel(rows, width)
        try backend.sigmoid(x, into: y)
        expectClose(y, x.doubles.map { 1 / (1 + exp(-$0)) }, "sigmoid")
        let dy = try backend.random(rows, width, seed: 2)
        let dx = try backend.sentinel(rows, width)
        try backend.sigmoidBackward(dy, y: y, into: dx)
        expectClose(dx, zip(dy.doubles, y.doubles).map { $0 * $1 * (1 - $1) }, "gradient of sigmoid")
        let sums = try backend.sentinel(rows)
        try backend.logSumExp(x, into: sums)
        let values = x.doubles
        expectClose(
            sums, (0..<rows).map { row in log((0..<width).reduce(0) { $0 + exp(values[row * width + $1]) }) },
            "log-sum-exp")
    }

    @Test func `softmax survives large logits`() throws {
        let x = try backend.allocator.tensor([Float(1e4), 1e4, -1e4, 88, 89, 90], Shape(2, 3))
        let y = try backend.empty(x.shape, .f32)
        try backend.softmax(x, into: y)
        expectClose(y, softmax(x.doubles, 3), "softmax of large logits")
    }

    @Test(arguments: [(1, 1, 1), (3, 17, 2), (100, 8, 8), (257, 64, 6), (20, 1024, 8), (5, 33, 1)])
    func `top-k takes the highest, highest first`(tokens: Int, experts: Int, choices: Int) throws {
        let scores = try backend.random(tokens, experts, seed: 1, rowPadding: 2)
        let bias = try backend.random(experts, seed: 2)
        for hasBias in [false, true] {
            let ids = try backend.allocator.integers(
                Array(repeating: -9, count: tokens * choices), Shape(tokens, choices))
            let values = try backend.sentinel(tokens, choices)
            try backend.topK(scores, bias: hasBias ? bias : nil, ids: ids, values: values)
            let (all, offsets) = (scores.floats(), bias.floats())
            let (found, chosen) = (values.floats(), ids.array(of: Int32.self).map(Int.init))
            for token in 0..<tokens {
                let row = all[token * experts..<(token + 1) * experts].enumerated().map {
                    $1 + (hasBias ? offsets[$0] : 0)
                }
                let expected = row.indices.sorted { row[$0] != row[$1] ? row[$0] > row[$1] : $0 < $1 }.prefix(choices)
                let range = token * choices..<(token + 1) * choices
                #expect(Array(chosen[range]) == Array(expected), "token \(token), bias \(hasBias)")
                #expect(Array(found[range]) == expected.map { all[token * experts + $0] })
            }
        }
    }

    @Test func `top-k gives ties to the lowest id, and NaN to nobody who has a choice`() throws {
        let nan = Float.nan
        let rows: [([Float], [Int32])] = [
            ([1, 2, 2, 2, 0], [1, 2, 3]), ([0, -0.0, 0, -0.0, -1], [0, 1, 2]),
            ([nan, 5, nan, -.infinity, nan], [1, 3, 0]),
            ([nan, nan, nan, nan, nan], [0, 1, 2]), ([.infinity, 1, .infinity, nan, 1], [0, 2, 1]),
            ([3, 3, 3, 3, 3], [0, 1, 2]),
        ]
        let scores = try backend.allocator.tensor(rows.flatMap(\.0), Shape(rows.count, 5))
        let ids = try backend.empty(Shape(rows.count, 3), .i32)
        try backend.topK(scores, bias: nil, ids: ids, values: nil)
        #expect(ids.array(of: Int32.self) == rows.flatMap(\.1))
    }

    @Test func `top-k gives ties across vectors to the lowest id`() throws {
        var row = Array(repeating: Float(0), count: 100)
        for place in [70, 33, 97, 21] { row[place] = 4 }
        let ids = try backend.empty(Shape(1, 6), .i32)
        try backend.topK(try backend.allocator.tensor(row, Shape(1, 100)), bias: nil, ids: ids, values: nil)
        #expect(ids.array(of: Int32.self) == [21, 33, 70, 97, 0, 1])
    }

    @Test(arguments: [(1, 1, 1), (17, 4, 2), (100, 64, 6), (257, 3, 1), (50, 8, 8)], [0, 0.3, 1] as [Double])
    func `sorting by expert is stable and complete`(size: (tokens: Int, experts: Int, choices: Int), dropped: Double)
        throws
    {
        var generator = SeededGenerator(seed: 4)
        let slots = size.tokens * size.choices
        let ids = (0..<slots).map { _ in
            Double.random(in: 0..<1, using: &generator) < dropped
                ? -1 : Int.random(in: 0..<size.experts, using: &generator)
        }
        let permutation = try backend.sortByExpert(
            try backend.allocator.integers(ids, Shape(size.tokens, size.choices)), experts: size.experts)
        let offsets = permutation.offsets.array(of: Int32.self).map(Int.init)
        let counts = permutation.counts.array(of: Int32.self).map(Int.init)
        let rowToSlot = permutation.rowToSlot.array(of: Int32.self).map(Int.init)
        let rowToToken = permutation.rowToToken.array(of: Int32.self).map(Int.init)
        #expect(counts == (0..<size.experts).map { expert in ids.count { $0 == expert } })
        #expect(offsets == counts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) })
        let sorted = ids.indices.filter { ids[$0] >= 0 }.sorted { ids[$0] != ids[$1] ? ids[$0] < ids[$1] : $0 < $1 }
        #expect(Array(rowToSlot[..<sorted.count]) == sorted)
        #expect(Array(rowToToken[..<sorted.count]) == sorted.map { $0 / size.choices })
        let slotToRow = permutation.slotToRow.array(of: Int32.self).map(Int.init)
        for (slot, row) in slotToRow.enumerated() { #expect(ids[slot] < 0 ? row == -1 : rowToSlot[row] == slot) }
    }
}
