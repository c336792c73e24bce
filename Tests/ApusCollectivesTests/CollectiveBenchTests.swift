import ApusTensor
import Testing

@testable import ApusCollectives

/// The bench of collectives: what it runs, and its arithmetic.
@Suite struct CollectiveBenchTests {
    @Test func `bandwidths are those of nccl-tests`() {
        let expected: [CollectiveBench.Kind: Double] = [
            .allReduce: 1.5, .reduceScatter: 0.75, .allGather: 0.75, .broadcast: 1, .allToAll: 0.75,
            .allToAllUneven: 0.75, .sendReceive: 1,
        ]
        for kind in CollectiveBench.Kind.allCases {
            let result = CollectiveBench.Result(
                kind: kind, ranks: 4, byteCount: 1 << 20, seconds: 0.5, fastest: 0.4, slowest: 0.6, rounds: 5)
            #expect(result.algorithmBandwidth == Double(2 << 20))
            #expect(result.busBandwidth == Double(2 << 20) * expected[kind, default: 0], "\(kind)")
        }
    }

    @Test func `uneven parts are uneven, and as many bytes for each rank`() {
        for size in [1, 2, 3, 4, 7] {
            for rows in [size, 100 * size, 1001 * size] {
                let splits = (0..<size).map { CollectiveBench.unevenSplits(rank: $0, size: size, rows: rows) }
                for (rank, split) in splits.enumerated() {
                    #expect(split.sent.reduce(0, +) == rows && split.received.reduce(0, +) == rows)
                    #expect(split.sent[rank] == rows / size || size == 1)
                    for other in 0..<size { #expect(split.sent[other] == splits[other].received[rank]) }
                }
                if size > 2, rows > size {
                    let others = splits[0].sent.dropFirst()
                    #expect((others.max() ?? 0) >= (others.min() ?? 0) * (size - 1))
                }
            }
        }
    }

    @Test(arguments: [1, 2, 3]) func `every operation is measured at every size, with one result for all ranks`(
        size: Int
    ) throws {
        let sizes = [1000, 65536]
        let results = try InProcess.run(ranks: size) { try CollectiveBench(of: $0).run(sizes: sizes, seconds: 0) }
        let kinds = CollectiveBench.Kind.allCases.filter { size > 1 || $0 != .sendReceive }
        #expect(results[0].map(\.kind) == kinds.flatMap { [$0, $0] })
        for result in results[0] {
            #expect(result.ranks == size && result.byteCount % (4 * size) == 0)
            #expect(sizes.contains { $0 - 4 * size < result.byteCount && result.byteCount <= $0 })
            #expect(result.fastest > 0 && result.fastest <= result.seconds && result.seconds <= result.slowest)
            #expect(CollectiveBench.rounds.contains(result.rounds))
        }
        #expect(results.allSatisfy { $0 == results[0] })
        let ratios = CollectiveBench.unevenRatios(results[0])
        #expect(ratios.map(\.byteCount) == Array(results[0].prefix(2).map(\.byteCount)))
        #expect(ratios.allSatisfy { $0.ratio > 0 })
    }

    @Test func `a slow wire is seen`() throws {
        let delay = TransferDelay(perOperation: .milliseconds(3))
        let results = try InProcess.run(ranks: 2, delay: delay) {
            try CollectiveBench(of: $0).run([.allGather], sizes: [1024], seconds: 0)
        }
        #expect(results[0][0].fastest >= 0.003 && results[0][0].seconds < 0.03)
    }

    @Test func `a check that fails names the rank`() throws {
        let outcomes = try InProcess.run(ranks: 3) { world in
            try world.byRank(world.rank == 1 ? 5 : 0, CachingAllocator())
        }
        #expect(outcomes == [[0, 5, 0], [0, 5, 0], [0, 5, 0]])
        let outcome = CollectiveCheck.Outcome(
            name: "all-reduce", dtype: .f32, byteCount: 4, seconds: 1, wrongByRank: outcomes[0])
        #expect(!outcome.passes && outcome.wrong == 5)
    }
}
