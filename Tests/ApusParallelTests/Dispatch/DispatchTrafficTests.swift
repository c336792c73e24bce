import ApusCollectives
import ApusExperts
import ApusNN
import ApusTensor
import Testing

@testable import ApusParallel

// Shape letters: T tokens, D model width, K choices per token, N ranks of the expert group, P of the tensor group.

/// Which collectives a layer calls, and how much they move, for every combination of dropped duplicates, fusion,
/// checkpointing and kept outputs (DeepSpeed-TED sections 5.1 and 5.2).
@Suite struct DispatchTrafficTests {
    /// Calls of one rank for the rows and gradients of one layer, forward and backward.
    struct Calls: Equatable, CustomStringConvertible {
        var allToAll: Int
        var allReduce: Int
        var reduceScatter: Int
        var allGather: Int

        init(_ allToAll: Int, _ allReduce: Int, _ reduceScatter: Int, _ allGather: Int) {
            self.allToAll = allToAll
            self.allReduce = allReduce
            self.reduceScatter = reduceScatter
            self.allGather = allGather
        }

        init(_ ledger: CollectiveLedger) {
            self.init(
                ledger.total(of: .allToAll, .allToAllUneven, dtype: .f32).calls,
                ledger.total(of: .allReduce, dtype: .f32).calls, ledger.total(of: .reduceScatter, dtype: .f32).calls,
                ledger.total(of: .allGather, dtype: .f32).calls)
        }

        var description: String {
            "\(allToAll) all-to-all, \(allReduce) all-reduce, \(reduceScatter) reduce-scatter, \(allGather) all-gather"
        }
    }

    struct Row: Sendable {
        var tensorRanks = 2
        var options = ExpertParallelOptions()
        let once: [Int]
        let checkpointed: [Int]
        let keepingAll: [Int]
    }

    /// Calls as all-to-all, all-reduce, reduce-scatter, all-gather.
    static let rows = [
        Row(tensorRanks: 1, once: [4, 0, 0, 0], checkpointed: [6, 0, 0, 0], keepingAll: [4, 0, 0, 0]),
        Row(
            options: ExpertParallelOptions(dropsDuplicates: false), once: [4, 2, 0, 0], checkpointed: [6, 3, 0, 0],
            keepingAll: [4, 2, 0, 0]),
        Row(
            options: ExpertParallelOptions(fusesReduceScatter: false), once: [4, 2, 0, 5],
            checkpointed: [6, 3, 0, 7], keepingAll: [4, 2, 0, 5]),
        Row(once: [4, 0, 2, 5], checkpointed: [6, 0, 3, 7], keepingAll: [4, 0, 2, 5]),
        Row(
            options: ExpertParallelOptions(dividesExperts: false), once: [4, 0, 0, 3], checkpointed: [6, 0, 0, 4],
            keepingAll: [4, 0, 0, 3]),
    ]

    static let item = LayerCase(
        name: "dropless top-2",
        configuration: MoEConfiguration(experts: 4, choices: 2, width: 4), lengths: [[5, 3], [8]])

    @Test(arguments: rows)
    func `calls of a layer`(_ row: Row) throws {
        func calls(_ isCheckpointed: Bool, _ keeping: KeptOutputs) throws -> [Calls] {
            let world = WorldShape(
                expertRanks: 2, tensorRanks: row.tensorRanks, options: row.options, isCheckpointed: isCheckpointed,
                keeping: keeping)
            return try DispatchTrafficTests.item.onRanks(world).map { Calls($0.traffic) }
        }
        func expected(_ numbers: [Int]) -> [Calls] {
            Array(repeating: Calls(numbers[0], numbers[1], numbers[2], numbers[3]), count: 2 * row.tensorRanks)
        }
        #expect(try calls(false, []) == expected(row.once))
        #expect(try calls(true, []) == expected(row.checkpointed))
        #expect(try calls(true, .all) == expected(row.keepingAll))
        // The largest outputs may be gathered again: only those calls come back.
        var gathering = row.keepingAll
        gathering[3] = row.checkpointed[3]
        #expect(try calls(true, [.allToAll, .reductions]) == expected(gathering))
    }

    @Test(arguments: [false, true])
    func `counts are announced once, and again only where nothing is kept`(isDivided: Bool) throws {
        for (keeping, expected) in [(KeptOutputs(), 2), (.all, 1)] {
            let world = WorldShape(
                expertRanks: 2, tensorRanks: 2, options: ExpertParallelOptions(dropsDuplicates: isDivided),
                isCheckpointed: true, keeping: keeping)
            for result in try DispatchTrafficTests.item.onRanks(world) {
                #expect(result.traffic.total { $0.dtype == .i32 }.calls == expected)
            }
        }
    }

    /// Summed over ranks, for tokens that all go elsewhere cannot be divided evenly on each.
    @Test(arguments: [1, 2, 4])
    func `dropping duplicates divides the rows that are exchanged`(tensorRanks: Int) throws {
        func bytes(_ dropsDuplicates: Bool) throws -> Int {
            let world = WorldShape(
                expertRanks: 2, tensorRanks: tensorRanks,
                options: ExpertParallelOptions(dropsDuplicates: dropsDuplicates))
            return try DispatchTrafficTests.item.onRanks(world).reduce(0) {
                $0 + $1.traffic.total(of: .allToAllUneven, dtype: .f32).bytes
            }
        }
        let item = DispatchTrafficTests.item
        // K T D floats, there and back, forward and backward.
        let once = 2 * item.firstToken(of: 2) * item.width * 4 * 4
        #expect(try bytes(false) == once * tensorRanks)
        #expect(try bytes(true) == once)
    }

    @Test func `a padded layer exchanges evenly and divides its places`() throws {
        let item = LayerCase(
            name: "padded",
            configuration: MoEConfiguration(
                experts: 4, choices: 2, width: 4, policy: .capacity(factor: 1, minimum: 1, order: .position),
                bank: .padded), lengths: [[8], [8]])
        for (dropsDuplicates, places) in [(false, 4), (true, 2)] {
            let world = WorldShape(
                expertRanks: 2, tensorRanks: 2, options: ExpertParallelOptions(dropsDuplicates: dropsDuplicates))
            for result in try item.onRanks(world) {
                #expect(result.traffic.total(of: .allToAllUneven, dtype: .f32).calls == 0)
                let count = result.traffic.total(of: .allToAll, dtype: .f32)
                #expect(count == CollectiveLedger.Count(calls: 4, bytes: 4 * 4 * places * item.width * 4))
            }
        }
    }

    @Test func `operations are noted under the communicator that they are asked of`() throws {
        let world = WorldShape(expertRanks: 2, tensorRanks: 2)
        for result in try DispatchTrafficTests.item.onRanks(world) {
            for entry in result.traffic.all.keys {
                let isExchange = [.allToAll, .allToAllUneven].contains(entry.kind)
                #expect(entry.communicator.hasPrefix(isExchange ? "expert." : "tensor."))
            }
        }
    }
}
