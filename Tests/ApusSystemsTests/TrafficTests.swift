import ApusExperts
import ApusModels
import ApusNN
import ApusParallel
import ApusTraining
import Testing

@testable import ApusSystems

/// What ranks really sent in a step, against the formulas, for every combination of the paper's mechanisms.
struct TrafficTests {
    /// Sixteen ranks, tensor 4, expert 4, eight experts; small enough for sixteen runs.
    private static func bench(_ switches: TEDSwitches, isPadded: Bool) -> TEDBench {
        var bench = TEDBench()
        (bench.layers, bench.width, bench.hidden, bench.vocabulary) = (2, 32, 32, 64)
        (bench.sequence, bench.choices, bench.isPadded) = (16, 2, isPadded)
        bench.switches = switches
        return bench
    }

    @Test(arguments: TEDSwitches.all, [true, false])
    func `sixteen ranks send what the formulas say`(_ switches: TEDSwitches, isPadded: Bool) throws {
        try expectAsCounted(Self.bench(switches, isPadded: isPadded))
    }

    @Test(arguments: ZeROStage.allCases, [Precision.f32, .bf16, .bf16Pure])
    func `gradients and weights, with accumulation`(_ zero: ZeROStage, precision: Precision) throws {
        var bench = Self.bench(TEDSwitches(dropsDuplicates: true), isPadded: false)
        (bench.ranks, bench.tensor, bench.expert, bench.passes) = (8, 2, 2, 2)
        (bench.zero, bench.precision) = (zero, precision)
        try expectAsCounted(bench)
    }

    /// A capacity that four ranks cannot share equally, tokens that they cannot, and experts in two slices.
    @Test(arguments: [true, false])
    func `parts that do not divide, and slices of experts`(isPadded: Bool) throws {
        var bench = Self.bench(TEDSwitches.mechanisms[4].switches, isPadded: isPadded)
        (bench.sequence, bench.microBatch, bench.capacityFactor) = (15, 1, 1.3)
        try expectAsCounted(bench)
        // Two ranks of tensor degree 1 send to no tensor group at all.
        (bench.ranks, bench.tensor, bench.expert) = (2, 1, 2)
        try expectAsCounted(bench)
    }

    /// Every rank has its tensor part of all experts.
    @Test(arguments: [true, false], [TEDSwitches(checkpointing: true), TEDSwitches.mechanisms[4].switches])
    func `no row leaves its rank`(isPadded: Bool, switches: TEDSwitches) throws {
        var bench = Self.bench(switches, isPadded: isPadded)
        (bench.ranks, bench.tensor, bench.expert, bench.expertsPerRank) = (4, 2, 1, 4)
        try expectAsCounted(bench)
    }

    @Test func `more ranks than experts`() throws {
        var bench = Self.bench(TEDSwitches(dropsDuplicates: true, fusesReduceScatter: true), isPadded: false)
        (bench.ranks, bench.tensor, bench.expert) = (8, 1, 8)
        var recipe = bench.recipe
        var moe = try #require(recipe.model.moe(layer: 1))
        moe.experts = 4
        recipe.model.feedForward[1] = .moe(moe)
        try expectAsCounted(recipe, ranks: 8)
    }

    private func expectAsCounted(_ bench: TEDBench) throws {
        try expectAsCounted(bench.recipe, ranks: bench.ranks)
    }

    private func expectAsCounted(_ recipe: Recipe, ranks: Int) throws {
        let expected = try TEDTraffic(recipe, on: recipe.layout(ranks: ranks))
        let steps = try TEDStep.inProcess(recipe, ranks: ranks)
        #expect(steps.map(\.rank) == Array(0..<ranks))
        for step in steps {
            for layer in recipe.model.feedForward.indices {
                let isPadded = recipe.model.moe(layer: layer)?.bank == .padded
                let wanted = expected.block(layer, loads: isPadded ? nil : step.loads[layer])
                let found = step.layers[layer]?.only(.tensor, .expert)
                #expect(found == wanted, "rank \(step.rank), layer \(layer): \(found.map(\.description) ?? "nothing")")
            }
            let wanted = expected.step(rank: step.rank, loads: step.loads)
            let found = step.total.only(.tensor, .expert, .data, .expertData)
            #expect(found == wanted, "rank \(step.rank): \(found), expected \(wanted)")
        }
    }
}
