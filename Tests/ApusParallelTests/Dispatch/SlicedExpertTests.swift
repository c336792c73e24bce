import ApusCollectives
import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusParallel

// Shape letters: F expert width, E experts, K choices per token, S slices.

/// With more ranks than experts each rank has a slice of one expert's F, and computes what one rank computes.
@Suite struct SlicedExpertTests {
    static let capacity = TokenPolicy.capacity(factor: 0.8, minimum: 1, order: .position)
    static let losses = RouterLosses(balance: 0.5, z: 0.1)

    static let pairs = [
        LayerCase(
            name: "2 experts, dropless top-1, shared",
            configuration: MoEConfiguration(experts: 2, choices: 1, width: 8, losses: losses, sharedWidth: 4)),
        LayerCase(
            name: "2 experts, dropless top-2, renormalized, 3 chunks",
            configuration: MoEConfiguration(
                experts: 2, choices: 2, width: 8, activation: .gelu, router: RouterConfiguration(renormalizes: true)),
            lengths: [[5], [], [1], [2, 2]], chunks: 3),
        LayerCase(
            name: "2 experts, one without tokens",
            configuration: MoEConfiguration(experts: 2, choices: 1, width: 8, losses: losses), favours: [1: 9]),
        LayerCase(
            name: "2 experts, capacity top-1, padded, residual",
            configuration: MoEConfiguration(
                experts: 2, choices: 1, width: 8, policy: capacity, bank: .padded, isResidual: true)),
        LayerCase(
            name: "2 experts, capacity top-2, padded, equal sequences",
            configuration: MoEConfiguration(
                experts: 2, choices: 2, width: 8, policy: capacity, bank: .padded, losses: losses), lengths: [[5, 5]]),
        LayerCase(
            name: "2 experts, dropout",
            configuration: MoEConfiguration(experts: 2, choices: 2, width: 8, losses: losses, dropout: 0.4)),
        LayerCase(
            name: "2 experts, block-sparse",
            configuration: MoEConfiguration(experts: 2, choices: 1, width: 16, bank: .blockSparse, blockSize: 2)),
    ]

    static let quartets = [
        LayerCase(
            name: "4 experts, dropless top-2, one without tokens",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 8, losses: losses),
            lengths: [[5, 3], [], [7], [1], [2, 2]], favours: [1: -9]),
        LayerCase(
            name: "4 experts, capacity top-2, padded",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 8, policy: capacity, bank: .padded)),
    ]

    static let options = [
        ExpertParallelOptions(), ExpertParallelOptions(dropsDuplicates: false),
        ExpertParallelOptions(fusesReduceScatter: false), ExpertParallelOptions(dividesExperts: false),
    ]

    @Test(
        arguments: pairs,
        [WorldShape(expertRanks: 4), WorldShape(expertRanks: 8)]
            + options.map { WorldShape(expertRanks: 4, tensorRanks: 2, options: $0) })
    func `slices of two experts`(_ item: LayerCase, _ world: WorldShape) throws {
        try item.expectSame(item.onRanks(world), as: item.onOneRank(world.expertRanks), world)
    }

    @Test(
        arguments: quartets,
        [WorldShape(expertRanks: 8)] + options.map { WorldShape(expertRanks: 8, tensorRanks: 2, options: $0) })
    func `slices of four experts`(_ item: LayerCase, _ world: WorldShape) throws {
        try item.expectSame(item.onRanks(world), as: item.onOneRank(world.expertRanks), world)
    }

    /// Without expert tensor parallelism expert groups may be cut from all ranks.
    @Test(arguments: [ExpertParallelTests.cases[0], ExpertParallelTests.cases[5], pairs[1], pairs[3], quartets[0]])
    func `one expert group over several tensor groups`(_ item: LayerCase) throws {
        for tensorRanks in [2, 4] {
            let world = WorldShape(
                expertRanks: 8 / tensorRanks, tensorRanks: tensorRanks,
                options: ExpertParallelOptions(dividesExperts: false), spansTensor: true)
            try item.expectSame(item.onRanks(world), as: item.onOneRank(world.expertRanks), world)
        }
    }

    @Test(arguments: [pairs[0], pairs[3], quartets[0]])
    func `checkpointing, kept outputs and any schedule change nothing`(_ item: LayerCase) throws {
        for keeping in [[], .all, .allToAll] as [KeptOutputs] {
            for schedule in [BackwardSchedule.reverse, .overlapping] {
                let world = WorldShape(
                    expertRanks: 8, isCheckpointed: true, keeping: keeping, schedule: schedule)
                try item.expectSame(item.onRanks(world), as: item.onOneRank(8), world)
            }
        }
    }

    @Test func `what a dispatcher says of its share`() throws {
        let shares = try InProcess.run(ranks: 6) { ExpertParallelDispatcher(experts: 3, group: $0).share }
        #expect(shares.map(\.experts) == [0..<1, 1..<2, 2..<3, 0..<1, 1..<2, 2..<3])
        #expect(shares.map(\.slice) == [0, 0, 0, 1, 1, 1] && shares.allSatisfy { $0.slices == 2 })
    }

    @Test func `a sum over slices is rounded once`() throws {
        let backend = CPUBackend(threadCount: 1)
        let tape = Tape(backend: backend)
        // bf16 has no 257: one after the other the small ones would vanish.
        let x = tape.leaf(try backend.allocator.floating([256, 1, 1, 2, 1, 4], Shape(6, 1), .bf16))
        let sum = try tape.sumOfSlices(x, slices: 3)
        // Rows are [slice][row]: 256 + 1 + 1 and 1 + 2 + 4.
        #expect(sum.tensor.floats() == [258, 7])
        let copies = try tape.repeated(sum, slices: 2)
        #expect(copies.tensor.floats() == [258, 7, 258, 7])
        try tape.addRoot(copies, seed: backend.allocator.floating([1, 2, 256, 1], Shape(4, 1), .bf16))
        try tape.backward()
        let gradient = try #require(tape.gradient(of: x))
        #expect(gradient.floats() == [256, 3, 256, 3, 256, 3])
    }
}
