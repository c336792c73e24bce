import ApusTensor
import Testing

@testable import ApusCollectives

/// Every operation against the result computed directly.
struct OperationTests {
    static let types: [DType] = [.f32, .bf16, .i32]

    @Test(arguments: worldSizes, types)
    func `all-reduce sums and takes the largest`(ranks: Int, dtype: DType) throws {
        // More than a block of the reduction, and no multiple of one.
        let count = 4096 + 37
        let reduced = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            let input = try memory.whole((0..<count).map { sample(rank: collective.rank, index: $0) }, dtype)
            let largest = try memory.untouched(input.shape, dtype)
            try collective.allReduce(input, .max, into: largest)
            try collective.allReduce(input, .sum, into: input)
            return [input.wholeNumbers, largest.wholeNumbers]
        }
        let columns = (0..<count).map { index in (0..<ranks).map { sample(rank: $0, index: index) } }
        let expected = [columns.map { $0.reduce(0, +) }, columns.map { $0.max() ?? 0 }]
        for result in reduced { #expect(result == expected) }
    }

    @Test(arguments: worldSizes, types)
    func `reduce-scatter cuts the sum, and all-gather puts it together`(ranks: Int, dtype: DType) throws {
        let rows = 3
        let results = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            let values = (0..<ranks * rows * 2).map { sample(rank: collective.rank, index: $0) }
            let part = try memory.untouched(Shape(rows, 2), dtype)
            let whole = try memory.untouched(Shape(ranks * rows, 2), dtype)
            try collective.reduceScatter(memory.whole(values, dtype, whole.shape), into: part)
            try collective.allGather(part, into: whole)
            return [part.wholeNumbers, whole.wholeNumbers]
        }
        let sum = (0..<ranks * rows * 2).map { index in
            (0..<ranks).reduce(0) { $0 + sample(rank: $1, index: index) }
        }
        for (rank, result) in results.enumerated() {
            #expect(result == [Array(sum[rank * rows * 2..<(rank + 1) * rows * 2]), sum])
        }
    }

    @Test(arguments: worldSizes)
    func `broadcast copies every root's contents`(ranks: Int) throws {
        let results = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            return try (0..<ranks).map { root in
                let tensor = try memory.whole([collective.rank * 2, collective.rank * 2 + 1], .u8)
                try collective.broadcast(tensor, root: root)
                return tensor.wholeNumbers
            }
        }
        for result in results { #expect(result == (0..<ranks).map { [$0 * 2, $0 * 2 + 1] }) }
    }

    @Test(arguments: worldSizes)
    func `even all-to-all transposes parts`(ranks: Int) throws {
        let results = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            let values = (0..<ranks).flatMap { [collective.rank * 10 + $0, -collective.rank] }
            let output = try memory.untouched(Shape(ranks, 2))
            try collective.allToAll(memory.whole(values, .i32, Shape(ranks, 2)), into: output)
            return output.wholeNumbers
        }
        for (rank, result) in results.enumerated() { #expect(result == (0..<ranks).flatMap { [$0 * 10 + rank, -$0] }) }
    }

    /// Rows that rank `source` sends to rank `target`; rank 1 sends nothing and rank 2 gets nothing.
    private static func rows(_ source: Int, _ target: Int) -> Int {
        source == 1 || target == 2 ? 0 : (source * 3 + target * 2) % 4
    }

    @Test(arguments: worldSizes)
    func `uneven all-to-all moves rows, and none where there are none`(ranks: Int) throws {
        let results = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            let sent = (0..<ranks).map { OperationTests.rows(collective.rank, $0) }
            let counts = try collective.startCountExchange(
                memory.whole(sent, .i32), into: memory.untouched(Shape(ranks)))
            let values = sent.enumerated().flatMap { target, rows in
                (0..<rows).flatMap { [collective.rank, target * 100 + $0] }
            }
            let splits = RowSplits(sent: sent, received: try counts.wait())
            let total = splits.received.reduce(0, +)
            // Two rows longer than needed: what lies behind the rows stays as it was.
            let output = try memory.untouched(Shape(total + 2, 2))
            let back = try memory.untouched(Shape(values.count / 2, 2))
            let input = try memory.whole(values, .i32, back.shape)
            try collective.allToAll(input, into: output, splits: splits)
            try collective.allToAll(output, into: back, splits: splits.mirrored)
            #expect(back.wholeNumbers == values)
            return output.wholeNumbers
        }
        for (rank, result) in results.enumerated() {
            let expected = (0..<ranks).flatMap { source in
                (0..<OperationTests.rows(source, rank)).flatMap { [source, rank * 100 + $0] }
            }
            #expect(result == expected + [-99, -99, -99, -99])
        }
    }

    @Test(arguments: worldSizes.filter { $0 > 1 })
    func `send and receive pass a ring, in order`(ranks: Int) throws {
        let results = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            let next = (collective.rank + 1) % ranks
            let previous = (collective.rank + ranks - 1) % ranks
            let sent = try (0..<5).map {
                try collective.startSend(memory.whole([collective.rank * 10 + $0], .i32), to: next)
            }
            let empty = try collective.startSend(memory.untouched(Shape(0, 4)), to: next)
            let received = try (0..<5).map { _ in
                let tensor = try memory.untouched(Shape(1))
                try collective.receive(tensor, from: previous)
                return tensor.wholeNumbers[0]
            }
            try collective.receive(memory.untouched(Shape(0, 4)), from: previous)
            for event in sent + [empty] { try event.wait() }
            return received
        }
        for (rank, result) in results.enumerated() {
            #expect(result == (0..<5).map { (rank + ranks - 1) % ranks * 10 + $0 })
        }
    }

    @Test(arguments: worldSizes)
    func `tensors without rows take part`(ranks: Int) throws {
        _ = try InProcess.run(ranks: ranks) { collective in
            let memory = CachingAllocator()
            let empty = try memory.untouched(Shape(0, 8), .f32)
            try collective.allReduce(empty, into: empty)
            try collective.reduceScatter(empty, into: empty)
            try collective.allGather(empty, into: empty)
            try collective.allToAll(empty, into: empty)
            try collective.broadcast(empty, root: 0)
            try collective.barrier()
        }
    }

    @Test
    func `a barrier holds everybody until the last has come`() throws {
        let started = ContinuousClock.now
        let waited = try InProcess.run(ranks: 4) { collective in
            if collective.rank == 2 { pause(milliseconds: 50) }
            try collective.barrier()
            return started.duration(to: .now)
        }
        for time in waited { #expect(time >= .milliseconds(50)) }
    }

    @Test
    func `sums are the same bits whoever comes first`() throws {
        let values: [Float] = [1e8, 1, -1e8, 3.25e-3]
        var results: Set<UInt32> = []
        for late in 0..<4 {
            let sums = try InProcess.run(ranks: 4) { collective in
                let tensor = try CachingAllocator().tensor([values[collective.rank]], Shape(1))
                if collective.rank == late { pause(milliseconds: 3) }
                try collective.allReduce(tensor, into: tensor)
                return tensor.floats()[0].bitPattern
            }
            results.formUnion(sums)
        }
        let inRankOrder: Float = ((values[0] + values[1]) + values[2]) + values[3]
        #expect(results == [inRankOrder.bitPattern])
    }

    @Test
    func `bf16 adds in f32 and rounds once, to even`() throws {
        // 256 + 1 + 1 is 258 when added in f32, but 256 when every partial sum is rounded to bf16.
        let values = [256, 1, 1]
        let sums = try InProcess.run(ranks: 3) { collective in
            let tensor = try CachingAllocator().whole([values[collective.rank]], .bf16)
            try collective.allReduce(tensor, into: tensor)
            return tensor.floats()[0]
        }
        #expect(sums == [258, 258, 258])
    }

    @Test
    func `a maximum does not hide what is not a number`() throws {
        let values: [Float] = [1, .nan, 2]
        let results = try InProcess.run(ranks: 3) { collective in
            let tensor = try CachingAllocator().tensor([values[collective.rank]], Shape(1))
            try collective.allReduce(tensor, .max, into: tensor)
            return tensor.floats()[0].isNaN
        }
        #expect(results == [true, true, true])
    }

    @Test
    func `an operation waits for an input under way`() throws {
        let results = try InProcess.run(ranks: 2, delay: TransferDelay(perOperation: .milliseconds(30))) { collective in
            let memory = CachingAllocator()
            let part = try memory.whole([collective.rank + 1], .i32)
            let gathered = try collective.startAllGather(part, into: memory.untouched(Shape(2)))
            let sum = try collective.startAllReduce(gathered, into: memory.untouched(Shape(2)))
            try sum.ready?.wait()
            return sum.wholeNumbers
        }
        #expect(results == [[2, 4], [2, 4]])
    }
}
