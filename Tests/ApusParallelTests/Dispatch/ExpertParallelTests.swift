import ApusCollectives
import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusParallel

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// A layer whose experts are on other ranks computes what one rank computes: output and every gradient.
@Suite struct ExpertParallelTests {
    static let losses = RouterLosses(balance: 0.5, z: 0.1)
    static let capacity = TokenPolicy.capacity(factor: 0.8, minimum: 1, order: .position)

    static let cases = [
        LayerCase(
            name: "dropless top-1, shared",
            configuration: MoEConfiguration(experts: 4, choices: 1, width: 4, losses: losses, sharedWidth: 4)),
        LayerCase(
            name: "dropless top-2, residual",
            configuration: MoEConfiguration(
                experts: 8, choices: 2, width: 4, activation: .gelu, router: RouterConfiguration(renormalizes: true),
                losses: losses, isResidual: true)),
        LayerCase(
            name: "dropless top-2, shared, 3 chunks",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 4, losses: losses, sharedWidth: 2), chunks: 3
        ),
        LayerCase(
            name: "capacity top-2, sorted, 3 chunks",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 4, policy: capacity, losses: losses),
            chunks: 3),
        LayerCase(
            name: "capacity top-1, padded, shared",
            configuration: MoEConfiguration(
                experts: 4, choices: 1, width: 4, policy: capacity, bank: .padded, losses: losses, sharedWidth: 2)),
        LayerCase(
            name: "capacity top-2, padded, equal sequences",
            configuration: MoEConfiguration(
                experts: 8, choices: 2, width: 4, policy: capacity, bank: .padded, losses: losses), lengths: [[5, 5]]),
        LayerCase(
            name: "block-sparse top-2",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 8, bank: .blockSparse, blockSize: 2)),
        LayerCase(
            name: "all tokens on one expert",
            configuration: MoEConfiguration(experts: 4, choices: 1, width: 4, losses: losses), favours: [2: 9]),
        LayerCase(
            name: "an expert without tokens, a rank without tokens, 3 chunks",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 4), lengths: [[5], [], [1], [2, 2]],
            chunks: 3, favours: [1: -9]),
        LayerCase(
            name: "expert dropout, top-2, 3 chunks",
            configuration: MoEConfiguration(experts: 4, choices: 2, width: 8, losses: losses, dropout: 0.4),
            lengths: [[5], [], [1], [2, 2]], chunks: 3),
        LayerCase(
            name: "expert dropout, capacity, padded, shared",
            configuration: MoEConfiguration(
                experts: 4, choices: 2, width: 8, policy: capacity, bank: .padded, sharedWidth: 2, dropout: 0.4)),
        LayerCase(
            name: "capacity by the load, padded, cosine, importance",
            configuration: MoEConfiguration(
                experts: 4, choices: 2, width: 4,
                router: RouterConfiguration(cosine: CosineConfiguration(width: 3, temperature: 0.3)),
                policy: .capacity(factor: -1, minimum: 1, order: .importance), bank: .padded, losses: losses),
            lengths: [[5, 5]]),
        LayerCase(
            name: "two levels",
            configuration: MoEConfiguration(
                experts: 4, choices: 1, width: 4, router: RouterConfiguration(nodes: 2), losses: losses)),
        LayerCase(
            name: "annealed, some experts skipped",
            configuration: MoEConfiguration(
                experts: 4, choices: 4, width: 4,
                router: RouterConfiguration(annealing: DenseToSparse(start: 1, steps: 5, threshold: 0.2)),
                losses: losses)),
    ]

    static let worlds: [WorldShape] =
        [1, 2, 4].flatMap { ranks in
            [
                WorldShape(expertRanks: ranks),
                WorldShape(
                    expertRanks: ranks, tensorRanks: 2, options: ExpertParallelOptions(dropsDuplicates: false)),
                WorldShape(expertRanks: ranks, tensorRanks: 2),
                WorldShape(
                    expertRanks: ranks, tensorRanks: 2, options: ExpertParallelOptions(fusesReduceScatter: false)),
                WorldShape(
                    expertRanks: ranks, tensorRanks: 2,
                    options: ExpertParallelOptions(dividesExperts: false, dropsDuplicates: false)),
            ]
        } + [
            // More tensor ranks than some ranks have tokens or places.
            WorldShape(expertRanks: 2, tensorRanks: 4),
            WorldShape(expertRanks: 4, tensorRanks: 4, options: ExpertParallelOptions(dividesExperts: false)),
        ]

    @Test(arguments: cases, worlds)
    func `many ranks compute what one computes`(_ item: LayerCase, _ world: WorldShape) throws {
        try item.expectSame(item.onRanks(world), as: item.onOneRank(world.expertRanks), world)
    }

    @Test(arguments: cases)
    func `checkpointing, kept outputs and any schedule change nothing`(_ item: LayerCase) throws {
        let reference = try item.onOneRank(2)
        for keeping in [[], .all, .allToAll, [.allToAll, .reductions]] as [KeptOutputs] {
            for schedule in [BackwardSchedule.reverse, .overlapping] {
                let world = WorldShape(
                    expertRanks: 2, tensorRanks: 2, isCheckpointed: true, keeping: keeping, schedule: schedule)
                try item.expectSame(item.onRanks(world), as: reference, world)
            }
        }
    }

    @Test(arguments: cases.prefix(3))
    func `transfers that take their time change nothing`(_ item: LayerCase) throws {
        let world = WorldShape(expertRanks: 2, tensorRanks: 2, schedule: .overlapping)
        let results = try item.onRanks(world, delay: TransferDelay(perOperation: .milliseconds(2)))
        try item.expectSame(results, as: item.onOneRank(2), world)
    }

    /// An expert's rows come in the order of the global batch wherever it is, so its sums are the same ones.
    @Test(arguments: [cases[0], cases[1], cases[7]], [2, 4])
    func `dividing experts alone changes no bit`(_ item: LayerCase, _ ranks: Int) throws {
        let reference = try item.onOneRank(ranks)
        let results = try item.onRanks(WorldShape(expertRanks: ranks))
        #expect(results.flatMap(\.output) == reference.output)
        #expect(results.flatMap(\.inputGradient) == reference.inputGradient)
        for (name, gradient) in reference.gradients where name.first?.isNumber ?? false {
            let own = try #require(results.compactMap { $0.gradients[name] }.first)
            #expect(own.values == gradient.values, "\(name)")
        }
    }

    /// A promise of equal capacities is about those that follow from numbers of tokens alone.
    @Test func `capacities by the load are told in spite of the promise`() throws {
        let item = ExpertParallelTests.cases[11]
        for promises in [true, false] {
            let world = WorldShape(
                expertRanks: 4, options: ExpertParallelOptions(hasSameCapacities: promises))
            try item.expectSame(item.onRanks(world), as: item.onOneRank(4), world)
        }
    }

    @Test func `equal capacities may be promised`() throws {
        let item = ExpertParallelTests.cases[5]
        let world = WorldShape(
            expertRanks: 2, tensorRanks: 2, options: ExpertParallelOptions(hasSameCapacities: true))
        let results = try item.onRanks(world)
        try item.expectSame(results, as: item.onOneRank(2), world)
        for result in results { #expect(result.traffic.total { $0.dtype == .i32 }.calls == 0) }
    }
}
