import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusParallel

// Shape letters: N ranks, G ranks of a node, M nodes.

/// Two hops, within nodes and across them, bring the rows that one all-to-all brings.
@Suite struct HierarchicalAllToAllTests {
    /// Ranks and how many of them are on a node.
    struct World: Sendable, CustomTestStringConvertible {
        let ranks: Int
        let ranksPerNode: Int
        var testDescription: String { "\(ranks) ranks, \(ranksPerNode) on a node" }
    }

    /// What one rank has: rows there, the same rows back, and the gradient of both together.
    struct Values: Equatable, Sendable {
        let there: [Float]
        let back: [Float]
        let gradient: [Float]
        /// Whether the rows that came back are those that were sent.
        let isSame: Bool
    }

    /// What one rank has by one hop and by two, and whether the ranks told it how many rows come.
    struct Comparison: Sendable {
        let flat: Values
        let nodes: Values
        let wasTold: Bool

        var holds: Bool { nodes == flat && nodes.isSame && wasTold }
    }

    static let worlds = [(4, 2), (8, 2), (8, 4)].map { World(ranks: $0, ranksPerNode: $1) }

    /// Sends rows there and back, by one hop and by two; `rows[i][j]` from rank `i` to rank `j`.
    private func values(_ world: World, rows: [[Int]], isEven: Bool = false) throws -> [Comparison] {
        let bound = rows.indices.map { rank in rows.reduce(0) { $0 + $1[rank] } + (isEven ? 0 : 2) }
        return try InProcess.run(ranks: world.ranks) { group in
            let backend = CPUBackend(threadCount: 1)
            let nodes = try #require(try HierarchicalAllToAll(over: group, ranksPerNode: world.ranksPerNode))
            let splits = RowSplits(sent: rows[group.rank], received: rows.map { $0[group.rank] })
            let tape = Tape(backend: backend)
            let pending = try nodes.startToTell(splits.sent, layer: 3, on: tape)
            let wasTold = try pending.wait() == splits.received
            let paths = [
                RowPath(
                    hops: [RowPath.Hop(group: group, splits: isEven ? nil : splits)], orders: [nil, nil], slowest: 0),
                try nodes.path(splits, relayed: pending.relayed, isEven: isEven, backend),
            ]
            let results = try paths.map { path in
                let tape = Tape(backend: backend)
                let count = splits.sent.reduce(0, +)
                let seed = UInt64(group.rank)
                let x = tape.leaf(try backend.allocator.random(Shape(count, 3), seed: seed))
                let there = try path.start(
                    x, rowBound: isEven ? nil : bound[group.rank], layer: 3, on: tape
                ).finish()
                let back = try path.reversed.start(there, layer: 3, on: tape).finish()
                let result = (there.tensor.floats(), back.tensor.floats())
                let isSame = result.1 == x.tensor.floats()
                try tape.addRoot(there, seed: backend.allocator.random(there.shape, seed: seed + 100))
                try tape.addRoot(back, seed: backend.allocator.random(back.shape, seed: seed + 200))
                try tape.backward()
                return Values(
                    there: result.0, back: result.1, gradient: tape.gradient(of: x)?.floats() ?? [], isSame: isSame)
            }
            return Comparison(flat: results[0], nodes: results[1], wasTold: wasTold)
        }
    }

    @Test(arguments: worlds)
    func `any splits arrive as from one all-to-all`(_ world: World) throws {
        var generator = SeededGenerator(seed: UInt64(world.ranks * 10 + world.ranksPerNode))
        for trial in 0..<12 {
            var rows = (0..<world.ranks).map { _ in
                (0..<world.ranks).map { _ in
                    // Many have nothing for each other.
                    max(0, Int.random(in: -trial...6, using: &generator))
                }
            }
            // One rank sends nothing, another receives nothing.
            if trial % 3 == 1 { rows[trial % world.ranks] = Array(repeating: 0, count: world.ranks) }
            if trial % 3 == 2 { for sender in rows.indices { rows[sender][trial % world.ranks] = 0 } }
            for (rank, result) in try values(world, rows: rows).enumerated() {
                #expect(result.holds, "\(rows), rank \(rank)")
            }
        }
    }

    @Test(arguments: worlds, [0, 1, 3])
    func `equal splits`(_ world: World, each: Int) throws {
        let rows = Array(repeating: Array(repeating: each, count: world.ranks), count: world.ranks)
        for isEven in [false, true] {
            for result in try values(world, rows: rows, isEven: isEven) { #expect(result.holds) }
        }
    }

    @Test(arguments: [(4, 4), (4, 8), (4, 1), (8, 3), (6, 4), (1, 2)])
    func `flat where nodes do not divide the group`(_ ranks: Int, ranksPerNode: Int) throws {
        let isFlat = try InProcess.run(ranks: ranks) {
            try HierarchicalAllToAll(over: $0, ranksPerNode: ranksPerNode) == nil
        }
        #expect(isFlat.allSatisfy { $0 })
    }

    /// Members of a group are found on nodes by their ranks in the world.
    @Test func `nodes of a part of the world`() throws {
        let members = try InProcess.run(ranks: 16) { world in
            // Ranks of equal tensor rank 0 or 1: 4 of each on a node of 8.
            let even = try #require(try world.split(name: "expert", color: world.rank % 2))
            let nodes = try #require(try HierarchicalAllToAll(over: even, ranksPerNode: 8))
            // One rank on each node, and two nodes with unequal shares.
            let strided = try #require(try world.split(name: "strided", color: world.rank % 8))
            let ragged = try world.split(name: "ragged", color: [0, 1, 8].contains(world.rank) ? 0 : nil)
            let others = try [strided, ragged].compactMap(\.self).compactMap {
                try HierarchicalAllToAll(over: $0, ranksPerNode: 8)?.node.members
            }
            return [nodes.node.members, nodes.across.members] + others
        }
        #expect(members[5] == [[1, 3, 5, 7], [5, 13]])
        #expect(members[10] == [[8, 10, 12, 14], [2, 10]])
        #expect(members[0] == [[0, 2, 4, 6], [0, 8]])
    }
}
