import ApusCollectives
import ApusParallel
import ApusTraining
import Testing

@testable import ApusSystems

/// What the paper says its mechanisms do to a block, as ratios of what was sent.
struct PaperClaimTests {
    private static func block(_ switches: TEDSwitches) throws -> Traffic {
        let recipe = TEDBench().with(switches).recipe
        return try TEDTraffic(recipe, on: recipe.layout(ranks: 16)).block(1)
    }

    @Test func `CAC takes six all-to-alls and six all-reduces to four`() throws {
        let with = try Self.block(TEDSwitches(checkpointing: true, keepsCollectives: true))
        let without = try Self.block(TEDSwitches(checkpointing: true))
        #expect(without[.expert, .allToAll].calls == 6 && with[.expert, .allToAll].calls == 4)
        #expect(without[.tensor, .allReduce].calls == 6 && with[.tensor, .allReduce].calls == 4)
        #expect(without[.expert, .allToAll].bytes * 2 == with[.expert, .allToAll].bytes * 3)
        // Without checkpointing there is nothing to keep.
        #expect(try Self.block(TEDSwitches(keepsCollectives: true)) == Self.block(TEDSwitches()))
    }

    @Test func `DTD divides the bytes of all-to-alls by the tensor degree`() throws {
        let with = try Self.block(TEDSwitches(dropsDuplicates: true))
        let without = try Self.block(TEDSwitches())
        #expect(with[.expert, .allToAll].calls == 4)
        #expect(with[.expert, .allToAll].bytes * 4 == without[.expert, .allToAll].bytes)
        #expect(without[.tensor, .allGather].calls == 0 && with[.tensor, .allGather].calls == 4)
    }

    /// The all-reduces of the experts, one in forward and one in backward; those of attention are whole on every rank.
    @Test func `fusion makes two of four all-reduces reduce-scatters of the same bytes`() throws {
        let with = try Self.block(TEDSwitches(dropsDuplicates: true, fusesReduceScatter: true))
        let without = try Self.block(TEDSwitches(dropsDuplicates: true))
        #expect(without[.tensor, .allReduce].calls == 4 && without[.tensor, .reduceScatter].calls == 0)
        #expect(with[.tensor, .allReduce].calls == 2 && with[.tensor, .reduceScatter].calls == 2)
        #expect(
            with.total(.allReduce, over: .tensor) + with.total(.reduceScatter, over: .tensor)
                == without.total(.allReduce, over: .tensor))
        // Nothing is cut without dropping, so that there is nothing to fuse.
        #expect(try Self.block(TEDSwitches(fusesReduceScatter: true)) == Self.block(TEDSwitches()))
    }

    @Test func `a recipe without a formula is refused by key`() throws {
        var recipe = TEDBench().recipe
        recipe.parallel.sequenceParallel = true
        let layout = try recipe.layout(ranks: 16)
        let error = #expect(throws: TEDError.self) { try TEDTraffic(recipe, on: layout) }
        #expect(try #require(error).description.contains("layout.sequence_parallel"))
        recipe.parallel.sequenceParallel = false
        recipe.parallel.ranksPerNode = 2
        #expect(throws: TEDError.self) { try TEDTraffic(recipe, on: layout) }
    }

    /// One token to each of four experts on two ranks, of which one is dropped; parts of two tokens.
    @Test func `rows follow from the choices`() {
        let choices: [[Int32]] = [[0, 1, 2, 3], [3, 3, -1, 3]]
        let whole = RoutedLoad.chosen(choices, perToken: 1, experts: 4, place: 1, part: nil)
        #expect(whole == RoutedLoad(sent: 3, received: 5, gathered: 5, announced: 4))
        let part = RoutedLoad.chosen(
            choices, perToken: 1, experts: 4, place: 1, part: RoutedLoad.Part(index: 1, count: 2))
        #expect(part == RoutedLoad(sent: 1, received: 3, gathered: 6, announced: 8))
        let padded = RoutedLoad.padded(capacity: 6, experts: 8, expertDegree: 4, parts: 4)
        #expect(padded == RoutedLoad(sent: 16, received: 16, gathered: 64, announced: 0))
    }
}
