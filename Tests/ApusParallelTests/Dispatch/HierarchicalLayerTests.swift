import ApusCollectives
import ApusExperts
import ApusNN
import ApusTensor
import Testing

@testable import ApusParallel

// Shape letters: E experts, N ranks of the expert group, G ranks of a node, M nodes.

/// A layer whose rows go by way of nodes computes the bits of one whose rows do not, with fewer messages.
@Suite struct HierarchicalLayerTests {
    static let worlds = [
        WorldShape(expertRanks: 4, ranksPerNode: 2), WorldShape(expertRanks: 8, ranksPerNode: 2),
        WorldShape(expertRanks: 8, ranksPerNode: 4),
        WorldShape(expertRanks: 4, tensorRanks: 2, ranksPerNode: 4),
        WorldShape(
            expertRanks: 4, tensorRanks: 2, options: ExpertParallelOptions(dropsDuplicates: false), ranksPerNode: 4),
        WorldShape(
            expertRanks: 4, tensorRanks: 2, options: ExpertParallelOptions(dividesExperts: false), ranksPerNode: 4),
    ]

    @Test(arguments: ExpertParallelTests.cases, worlds)
    func `no bit changes`(_ item: LayerCase, _ world: WorldShape) throws {
        try expectSameBits(item, world)
    }

    @Test(arguments: ExpertParallelTests.cases)
    func `checkpointing, kept outputs and any schedule change nothing`(_ item: LayerCase) throws {
        for keeping in [[], .all, .allToAll] as [KeptOutputs] {
            for schedule in [BackwardSchedule.reverse, .overlapping] {
                var world = HierarchicalLayerTests.worlds[3]
                (world.isCheckpointed, world.keeping, world.schedule) = (true, keeping, schedule)
                try expectSameBits(item, world)
            }
        }
    }

    /// Compares with the same world, its all-to-alls flat.
    private func expectSameBits(_ item: LayerCase, _ world: WorldShape) throws {
        var flat = world
        flat.ranksPerNode = nil
        for (found, expected) in zip(try item.onRanks(world), try item.onRanks(flat)) {
            #expect(found.output == expected.output && found.inputGradient == expected.inputGradient)
            #expect(Set(found.gradients.keys) == Set(expected.gradients.keys))
            for (name, gradient) in expected.gradients {
                #expect(found.gradients[name]?.values == gradient.values, "\(name)")
            }
        }
    }

    static let padded = LayerCase(
        name: "padded",
        configuration: MoEConfiguration(
            experts: 8, choices: 2, width: 4, policy: .capacity(factor: 1, minimum: 1, order: .position),
            bank: .padded), lengths: [[8]])

    /// Four exchanges, there and back in forward and backward, and one of counts.
    @Test(arguments: [(4, 2), (8, 2), (8, 4), (16, 4)])
    func `a rank writes to G and N over G others, not to N`(_ ranks: Int, _ nodeSize: Int) throws {
        let flat = try HierarchicalLayerTests.padded.onRanks(WorldShape(expertRanks: ranks))
        let world = WorldShape(expertRanks: ranks, ranksPerNode: nodeSize)
        let nodes = try HierarchicalLayerTests.padded.onRanks(world)
        let hops = (nodeSize - 1) + (ranks / nodeSize - 1)
        for (flat, nodes) in zip(flat, nodes) {
            #expect(flat.messages.rows == 4 * (ranks - 1))
            #expect(nodes.messages.rows == 4 * hops)
            #expect(flat.messages.count(.allToAll, .i32) == ranks - 1)
            #expect(nodes.messages.count(.allToAll, .i32) == hops)
            let (before, after) = (
                flat.traffic.total(of: .allToAll, dtype: .f32), nodes.traffic.total(of: .allToAll, dtype: .f32)
            )
            // Every row moves twice.
            #expect(before.calls == 4 && after.calls == 8 && after.bytes == 2 * before.bytes)
        }
    }

    @Test func `calls are noted under the communicators of nodes, and kept like others`() throws {
        let item = DispatchTrafficTests.item
        for (isCheckpointed, keeping, rows, counts) in [
            (false, [], 8, 2), (true, [], 12, 4), (true, .all, 8, 2),
        ] as [(Bool, KeptOutputs, Int, Int)] {
            let world = WorldShape(
                expertRanks: 4, isCheckpointed: isCheckpointed, keeping: keeping, ranksPerNode: 2)
            for result in try item.onRanks(world) {
                #expect(result.traffic.total(of: .allToAllUneven, dtype: .f32).calls == rows)
                #expect(result.traffic.total(of: .allToAll, dtype: .i32).calls == counts)
                let within = result.traffic.total { $0.communicator.contains("/node.") }
                let across = result.traffic.total { $0.communicator.contains("/across.") }
                #expect(within.calls == across.calls && within.calls + across.calls == rows + counts)
            }
        }
    }

    @Test func `equal capacities may be promised`() throws {
        let world = WorldShape(
            expertRanks: 8, options: ExpertParallelOptions(hasSameCapacities: true), ranksPerNode: 4)
        let item = HierarchicalLayerTests.padded
        let results = try item.onRanks(world)
        try item.expectSame(results, as: item.onOneRank(8), world)
        for result in results { #expect(result.traffic.total { $0.dtype == .i32 }.calls == 0) }
    }
}
