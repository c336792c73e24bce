import ApusCollectives
import ApusTensor
import Testing

@testable import ApusParallel

/// Communicators of a layout.
struct ParallelGroupsTests {
    @Test
    func `every rank gets the communicators of its groups`() throws {
        let layout = try LayoutConfiguration(tensor: 2, expert: .perLayer([4, 2, 1, 4])).layout(ranks: 16)
        _ = try InProcess.run(ranks: 16, timeout: .seconds(30)) { world in
            let groups = try ParallelGroups(layout, world: world)
            #expect(groups.place == layout.place(of: world.rank))
            for kind in layout.groupKinds {
                let part = groups[kind]
                #expect(part.members == layout.group(kind, of: world.rank))
                #expect(part.name == "\(kind.name).\(layout.groupIndex(kind, of: world.rank))")
                // They work, and do not disturb each other.
                let memory = CachingAllocator()
                let ranks = try memory.tensor([Int32(world.rank)], Shape(1))
                let gathered = try memory.tensor(Array(repeating: Int32(-1), count: part.size), Shape(part.size))
                try part.allGather(ranks, into: gathered)
                #expect(gathered.array(of: Int32.self).map(Int.init) == part.members)
            }
            #expect(groups[.world] === world)
            // Layers of one degree share their communicators.
            #expect(groups.expert(layer: 0) === groups.expert(layer: 3))
            #expect(groups.expertData(layer: 0) === groups.expertData(layer: 3))
            #expect(groups.expert(layer: 0).rank == groups.place.expert(degree: 4))
            #expect(groups.expertData(layer: 1).rank == groups.place.expertData(degree: 2))
            #expect(groups.tensor.rank == groups.place.tensor)
            #expect(groups.data.rank == groups.place.data)
        }
    }

    @Test
    func `one rank has groups of its own`() throws {
        let groups = try ParallelGroups(.single, world: SingleRank())
        #expect(Layout.single.groupKinds.allSatisfy { groups[$0].members == [0] })
    }

    @Test
    func `ranks with different layouts are told so`() throws {
        // The same splits by name and number: without a comparison the groups would be nonsense and nobody would know.
        let (one, other) = (
            try Layout.of(8, tensor: 2, expert: 2), try Layout.of(8, tensor: 4, expert: 2)
        )
        let error = #expect(throws: CollectiveError.self) {
            try InProcess.run(ranks: 8, timeout: .seconds(30)) { world in
                _ = try ParallelGroups(world.rank == 5 ? other : one, world: world)
            }
        }
        let text = try #require(error).description
        #expect(text.contains("tensor 2, expert 2, data 4") && text.contains("tensor 4, expert 2, data 2"), "\(text)")
    }

    @Test
    func `a world of another size is refused`() throws {
        let layout = try Layout.of(8, tensor: 2, expert: 2)
        let error = #expect(throws: LayoutError.self) { try ParallelGroups(layout, world: SingleRank()) }
        #expect(
            try #require(error).description == """
                ranks is 1, and the layout was made for 8: \
                the nearest layout that works is 1 rank as tensor 1, expert 1, data 1; or start 8 ranks
                """)
    }
}
