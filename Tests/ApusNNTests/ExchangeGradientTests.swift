import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: N ranks, R rows, D row width.

/// The adjoints of exchanges against differences of the loss of the whole world.
struct ExchangeGradientTests {
    static let worlds = [2, 3, 4]

    /// Rows that rank `source` sends to rank `target`; rank 1 sends nothing.
    private static func rows(_ source: Int, _ target: Int) -> Int { source == 1 ? 0 : (source + 2 * target) % 3 }

    private static func splits(_ collective: any Collective) -> RowSplits {
        RowSplits(
            sent: (0..<collective.size).map { rows(collective.rank, $0) },
            received: (0..<collective.size).map { rows($0, collective.rank) })
    }

    private static func sentShape(_ rank: Int, _ ranks: Int) -> Shape {
        Shape((0..<ranks).reduce(0) { $0 + rows(rank, $1) }, 2)
    }

    @Test(arguments: worlds)
    func `even all-to-all`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(ranks * 2, 2), count: ranks)) { tape, x, collective in
            let y = try tape.startAllToAll(x, over: collective).finish()
            return try tape.addWeightedSquares(
                of: y, weights: exchangeValues(y.shape.count, seed: 40 + collective.rank))
        }
    }

    @Test(arguments: worlds)
    func `uneven all-to-all with ranks that send nothing, and with a bound`(ranks: Int) throws {
        // One row more than is sent: it keeps a gradient of zero.
        let shapes = (0..<ranks).map { rank in
            let sent = ExchangeGradientTests.sentShape(rank, ranks)
            return sent.replacingFirst(with: sent[0] + 1)
        }
        try expectExchangeGradient(shapes) { tape, x, collective in
            let splits = ExchangeGradientTests.splits(collective)
            let total = splits.received.reduce(0, +)
            let y = try tape.startAllToAll(x, splits: splits, rowBound: total + 2, over: collective).finish()
            #expect(y.tensor.floats().suffix(4) == [0, 0, 0, 0])
            return try tape.addWeightedSquares(
                of: y, weights: exchangeValues(y.shape.count, seed: 40 + collective.rank))
        }
    }

    @Test(arguments: worlds, [false, true])
    func `there and back with computation between, beside another use of the input`(
        ranks: Int, overlapping: Bool
    ) throws {
        let shapes = (0..<ranks).map { ExchangeGradientTests.sentShape($0, ranks) }
        let schedule = overlapping ? BackwardSchedule.overlapping : .reverse
        try expectExchangeGradient(shapes, schedule: schedule) { tape, x, collective in
            let splits = ExchangeGradientTests.splits(collective)
            let there = try tape.startAllToAll(x, splits: splits, over: collective)
            let dense = try tape.squared(x)
            let computed = try tape.squared(there.finish())
            let back = try tape.startAllToAll(computed, splits: splits.mirrored, over: collective)
            let sum = try tape.add(dense, x)
            let y = try tape.add(sum, back.finish())
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 7 + collective.rank))
        }
    }

    @Test(arguments: worlds)
    func `all-gather before partial losses`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(2, 3), count: ranks)) { tape, x, collective in
            let y = try tape.startAllGather(x, downstream: .partial, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5 + collective.rank))
        }
    }

    @Test(arguments: worlds)
    func `all-gather before a replicated loss`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(2, 3), count: ranks), .replicatedLoss) {
            tape, x, collective in
            let y = try tape.startAllGather(x, downstream: .replicated, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5))
        }
    }

    @Test(arguments: worlds)
    func `reduce-scatter`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(ranks * 2, 2), count: ranks)) { tape, x, collective in
            let y = try tape.startReduceScatter(x, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5 + collective.rank))
        }
    }

    @Test(arguments: worlds)
    func `all-reduce before partial losses`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(2, 2), count: ranks)) { tape, x, collective in
            let y = try tape.startAllReduce(x, downstream: .partial, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5 + collective.rank))
        }
    }

    @Test(arguments: worlds)
    func `all-reduce before a replicated loss`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(2, 2), count: ranks), .replicatedLoss) {
            tape, x, collective in
            let y = try tape.startAllReduce(x, downstream: .replicated, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5))
        }
    }

    @Test(arguments: worlds)
    func `own rows of a replicated value`(ranks: Int) throws {
        try expectExchangeGradient(Array(repeating: Shape(ranks * 2, 2), count: ranks), .replicatedInput) {
            tape, x, collective in
            let y = try tape.takeOwnRows(x, over: collective)
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5 + collective.rank))
        }
    }

    @Test(arguments: worlds)
    func `fan-out and replicated all-reduce enclose a divided computation`(ranks: Int) throws {
        let layout: ExchangeLayout = [.replicatedInput, .replicatedLoss]
        try expectExchangeGradient(Array(repeating: Shape(2, 2), count: ranks), layout) { tape, x, collective in
            let inside = try tape.fanOut(x, over: collective)
            // What each rank computes differs, as the shards of a weight do.
            let part = try tape.scaled(tape.squared(inside), by: Float(collective.rank + 1))
            let y = try tape.startAllReduce(part, downstream: .replicated, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5))
        }
    }

    @Test(arguments: worlds)
    func `own rows and replicated all-gather enclose a divided computation`(ranks: Int) throws {
        let layout: ExchangeLayout = [.replicatedInput, .replicatedLoss]
        try expectExchangeGradient(Array(repeating: Shape(ranks, 2), count: ranks), layout) { tape, x, collective in
            let part = try tape.squared(tape.takeOwnRows(x, over: collective))
            let y = try tape.startAllGather(part, downstream: .replicated, over: collective).finish()
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(y.shape.count, seed: 5))
        }
    }
}
