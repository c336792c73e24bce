import ApusTensor
import Testing

@testable import ApusCollectives

/// Calls and bytes as a ledger has them.
@Suite struct CountingCollectiveTests {
    @Test func `notes calls and bytes by communicator, operation and type, and hands results on`() throws {
        let ledgers = try InProcess.run(ranks: 4) { world -> CollectiveLedger in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            #expect(counted.rank == world.rank && counted.size == 4 && counted.name == "world")
            let allocator = CachingAllocator()
            let values = try allocator.tensor([Float(world.rank), 1, 2, 3], Shape(4, 1))
            let result = try allocator.tensor([Float](repeating: 0, count: 4), Shape(4, 1))
            try counted.allToAll(values, into: result)
            try counted.allToAll(values, into: result)
            let splits = RowSplits(sent: [0, 1, 0, 0], received: world.rank == 1 ? [1, 1, 1, 1] : [0, 0, 0, 0])
            try counted.allToAll(values, into: result, splits: splits)
            let half = try #require(try counted.split(name: "half", color: world.rank % 2))
            let sum = try allocator.tensor([Int32(1)], Shape(1))
            try half.allReduce(sum, into: sum)
            #expect(sum.array(of: Int32.self) == [2])
            try half.barrier()
            return ledger
        }
        for (rank, ledger) in ledgers.enumerated() {
            #expect(ledger.total(of: .allToAll, dtype: .f32) == CollectiveLedger.Count(calls: 2, bytes: 32))
            #expect(ledger.total(of: .allToAllUneven, dtype: .f32) == CollectiveLedger.Count(calls: 1, bytes: 4))
            #expect(ledger.total(of: .allToAll, .allToAllUneven, dtype: .f32).calls == 3)
            #expect(ledger.total { $0.communicator == "half.\(rank % 2)" }.calls == 2)
            #expect(ledger.total(of: .allReduce, dtype: .i32) == CollectiveLedger.Count(calls: 1, bytes: 4))
            ledger.clear()
            #expect(ledger.all.isEmpty)
        }
    }
}
