import ApusTensor
import Testing

@testable import ApusCollectives

/// Thousands of operations, overlapping and on several communicators.
struct EnduranceTests {
    @Test(arguments: [TransferDelay.none, TransferDelay(perOperation: .microseconds(20), bytesPerSecond: 1e9)])
    func `thousands of operations end, with the right results`(delay: TransferDelay) throws {
        let ranks = 4
        let rounds = 1500
        let wrong = try InProcess.run(ranks: ranks, delay: delay) { world in
            let pair = try #require(try world.split(name: "pair", color: world.rank / 2))
            let memory = CachingAllocator()
            var pending: [(tensor: Tensor, expected: [Int])] = []
            var wrong = 0
            for round in 0..<rounds {
                let value = try memory.whole([world.rank + round], .i32)
                switch round * 7 % 5 {
                case 0:
                    let sum = (0..<ranks).reduce(0) { $0 + $1 + round }
                    pending.append((try world.startAllReduce(value, into: memory.untouched(Shape(1))), [sum]))
                case 1:
                    let both = pair.members.map { $0 + round }
                    pending.append((try pair.startAllGather(value, into: memory.untouched(Shape(2))), both))
                case 2:
                    let next = (world.rank + 1) % ranks
                    let previous = (world.rank + ranks - 1) % ranks
                    _ = try world.startSend(value, to: next)
                    pending.append(
                        (try world.startReceive(memory.untouched(Shape(1)), from: previous), [previous + round]))
                case 3:
                    // Even rounds send everything to rank 0, odd ones nothing at all.
                    let rows = round % 2 == 0 ? 1 : 0
                    let splits = RowSplits(
                        sent: [rows, 0, 0, 0], received: Array(repeating: world.rank == 0 ? rows : 0, count: ranks))
                    let target = try memory.untouched(Shape(splits.received.reduce(0, +)))
                    let expected = target.count == 0 ? [] : (0..<ranks).map { $0 + round }
                    pending.append((try world.startAllToAll(value, into: target, splits: splits), expected))
                default: try world.startBarrier().wait()
                }
                // Waits for the oldest and the newest in turn, so that events are met in any order.
                while pending.count > 8 {
                    let next = round % 2 == 0 ? pending.removeFirst() : pending.removeLast()
                    try next.tensor.ready?.wait()
                    if next.tensor.wholeNumbers != next.expected { wrong += 1 }
                }
            }
            for next in pending {
                try next.tensor.ready?.wait()
                if next.tensor.wholeNumbers != next.expected { wrong += 1 }
            }
            return wrong
        }
        #expect(wrong == [0, 0, 0, 0])
    }

    @Test
    func `worlds come and go`() throws {
        for ranks in 1...40 {
            let sums = try InProcess.run(ranks: ranks % 8 + 1) { world in
                let value = try CachingAllocator().whole([1], .i32)
                try world.allReduce(value, into: value)
                return value.wholeNumbers[0]
            }
            #expect(sums == Array(repeating: ranks % 8 + 1, count: ranks % 8 + 1))
        }
    }
}
