import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusExperts

// Shape letters: T tokens, D model width, E experts, K choices per token, C capacity.

/// Capacity, its three orders, and routing groups.
@Suite struct PolicyTests {
    typealias Order = TokenPolicy.DropOrder

    static let lengths = [7, 1, 12, 31]

    static func moe(
        _ order: Order, factor: Float, minimum: Int = 1, choices: Int = 2, bank: ExpertBankKind = .grouped
    ) -> MoEConfiguration {
        MoEConfiguration(
            experts: 5, choices: choices, width: 7, router: RouterConfiguration(renormalizes: true),
            policy: .capacity(factor: factor, minimum: minimum, order: order), bank: bank,
            losses: RouterLosses(balance: 0.5, z: 0.1, importance: 0.3), sharedWidth: 3)
    }

    @Test(arguments: [
        // tokens, experts, choices, factor, minimum, C
        (100, 10, 1, Float(1.1), 0, 11), (1000, 10, 1, 1.1, 0, 110), (10, 3, 1, 1.2, 0, 4), (100, 10, 2, 1.2, 0, 24),
        (7, 4, 1, 1, 0, 2), (7, 4, 2, 1, 0, 4), (7, 4, 1, 0.1, 4, 4), (3, 4, 1, 0.1, 4, 3), (16, 8, 2, 1.25, 4, 5),
        (7, 4, 2, 100, 0, 7), (7, 4, 2, 1e30, 0, 7), (7, 4, 2, .infinity, 0, 7),
    ])
    func `capacities`(_ entry: (tokens: Int, experts: Int, choices: Int, factor: Float, minimum: Int, expected: Int)) {
        #expect(
            TokenPolicy.capacity(
                tokens: entry.tokens, experts: entry.experts, choices: entry.choices, factor: entry.factor,
                minimum: entry.minimum) == entry.expected)
    }

    @Test(arguments: Order.allCases, [Float(0.3), 0.8, 5])
    func `an expert keeps as many as fit, and the right ones`(_ order: Order, _ factor: Float) throws {
        let fixture = try LayerFixture(PolicyTests.moe(order, factor: factor, minimum: 2), width: 9)
        let x = try fixture.input(51)
        let layout = try fixture.layout(PolicyTests.lengths)
        let pass = try LayerPass(fixture, x, LayerPass.Setting(layout: layout, step: 4))
        let scores = try fixture.backend.empty(Shape(51, 5), .f32)
        try fixture.router.weight.withWeights(on: fixture.backend.stream) {
            try fixture.backend.matMul(x.matrix, $0.transpose, into: scores)
        }
        try fixture.backend.softmax(scores, into: scores)
        var dropped = 0
        for (group, capacity) in zip(layout.routingGroups, pass.routing.decision.capacities) {
            #expect(capacity == min(max(Int((factor * 2 * Float(group.count) / 5).rounded(.up)), 2), group.count))
            for expert in 0..<5 {
                // Slots that chose the expert, first choices before second ones.
                let slots = (0..<2).flatMap { choice in group.map { $0 * 2 + choice } }
                    .filter { pass.chosen[$0] == expert }
                let kept = slots.filter { pass.kept[$0] == expert }
                dropped += slots.count - kept.count
                #expect(kept.count == min(slots.count, capacity))
                switch order {
                case .position: #expect(kept == Array(slots.prefix(capacity)))
                case .probability:
                    let ranked = slots.sorted {
                        scores.floats()[$0 / 2 * 5 + expert] > scores.floats()[$1 / 2 * 5 + expert]
                    }
                    #expect(Set(kept) == Set(ranked.prefix(capacity)))
                case .importance:
                    let best = { (slot: Int) in scores.floats()[slot / 2 * 5..<slot / 2 * 5 + 5].max() ?? 0 }
                    let ranked = slots.sorted { ($0 % 2, -best($0)) < ($1 % 2, -best($1)) }
                    #expect(Set(kept) == Set(ranked.prefix(capacity)))
                case .random: break
                }
            }
        }
        #expect((dropped > 0) == (factor < 5))
    }

    /// By hand: tokens 0 to 3 want expert 0 first, with probabilities 0.6, 0.9, 0.5 and 0.8.
    @Test(arguments: [(1, [1]), (2, [1, 3]), (3, [0, 1, 3])])
    func `the important tokens stay`(_ entry: (capacity: Int, tokens: [Int])) throws {
        let fixture = try LayerFixture(
            MoEConfiguration(
                experts: 2, choices: 1, width: 3,
                policy: .capacity(factor: Float(entry.capacity) / 2, minimum: 1, order: .importance)), width: 1)
        try fixture.assign("gate", [1, 0])
        // The logit difference of a probability p is log(p / (1 - p)).
        let x = try fixture.backend.allocator.tensor([0.405, 2.197, 0, 1.386] as [Float], Shape(4, 1))
        let pass = try LayerPass(fixture, x)
        #expect((0..<4).filter { pass.kept[$0] == 0 } == entry.tokens)
    }

    @Test(arguments: [ExpertBankKind.grouped, .padded])
    func `a capacity of 0 is the smallest that drops nothing, a negative one has a bound`(
        _ bank: ExpertBankKind
    ) throws {
        let free = try LayerFixture(
            MoEConfiguration(
                experts: 5, choices: 2, width: 7, router: RouterConfiguration(renormalizes: true),
                losses: RouterLosses(balance: 0.5, z: 0.1, importance: 0.3), sharedWidth: 3), width: 9)
        let x = try free.input(51)
        let expected = try LayerPass(
            free, x, LayerPass.Setting(layout: try free.layout(PolicyTests.lengths), step: 4))
        func pass(_ factor: Float) throws -> LayerPass {
            let fixture = try LayerFixture(PolicyTests.moe(.position, factor: factor, bank: bank), width: 9)
            let layout = try fixture.layout(PolicyTests.lengths)
            return try LayerPass(fixture, x, LayerPass.Setting(layout: layout, step: 4))
        }
        var begin = 0
        let loads = PolicyTests.lengths.map { length in
            let slots = expected.chosen[2 * begin..<2 * (begin + length)]
            begin += length
            return (0..<5).map { expert in slots.count { $0 == expert } }.max() ?? 0
        }
        let none = try pass(0)
        #expect(none.routing.decision.capacities == loads)
        #expect(none.kept == expected.chosen)
        expectClose(none.output, expected.output.doubles, within: 1e-6, "output")
        let usual = try pass(1).routing.decision.capacities
        let bounded = try pass(-1)
        #expect(bounded.routing.decision.capacities == zip(loads, usual).map { min($0, $1) })
        #expect(bounded.routing.decision.capacities != loads && bounded.kept.contains(-1))
        #expect(try pass(-50).routing.decision.capacities == loads)
    }

    @Test(arguments: [ExpertBankKind.grouped, .padded], Order.allCases)
    func `an evaluation has a capacity of its own, and generation none`(_ bank: ExpertBankKind, _ order: Order) throws {
        var configuration = PolicyTests.moe(order, factor: 0.5, bank: bank)
        configuration.policy = .capacity(factor: 0.5, minimum: 1, order: order, evaluation: 0.75)
        let fixture = try LayerFixture(configuration, width: 9)
        let x = try fixture.input(51)
        func pass(step: Int?, isEvaluation: Bool = false) throws -> LayerPass {
            var setting = LayerPass.Setting(layout: try fixture.layout(PolicyTests.lengths), step: step)
            setting.isEvaluation = isEvaluation
            return try LayerPass(fixture, x, setting)
        }
        func capacities(_ factor: Float) -> [Int] {
            PolicyTests.lengths.map { min(max(Int((factor * 2 * Float($0) / 5).rounded(.up)), 1), $0) }
        }
        #expect(try pass(step: 1).routing.decision.capacities == capacities(0.5))
        let evaluated = try pass(step: nil, isEvaluation: true)
        #expect(evaluated.routing.decision.capacities == capacities(0.75) && evaluated.kept.contains(-1))
        let generated = try pass(step: nil)
        #expect(generated.routing.decision.capacities.isEmpty && !generated.kept.contains(-1))
        configuration.policy = .capacity(factor: 0.5, minimum: 1, order: order)
        let without = try LayerFixture(configuration, width: 9)
        var setting = LayerPass.Setting(layout: try without.layout(PolicyTests.lengths), step: nil)
        setting.isEvaluation = true
        #expect(try !LayerPass(without, x, setting).kept.contains(-1))
    }

    @Test func `random selection is not by position, and new each step and layer`() throws {
        var outcomes: Set<[Int]> = []
        for (index, step, seed) in [(0, 4, 3), (1, 4, 3), (0, 5, 3), (0, 4, 2)] {
            let fixture = try LayerFixture(PolicyTests.moe(.random, factor: 0.5, choices: 1), width: 9, index: index)
            // The same weights in every layer.
            let other = try LayerFixture(PolicyTests.moe(.random, factor: 0.5, choices: 1), width: 9)
            try fixture.assign("gate", try other.weights("gate").map(Float.init))
            let setting = LayerPass.Setting(step: step, seed: UInt64(seed))
            outcomes.insert(try LayerPass(fixture, fixture.input(60), setting).kept)
        }
        let byPosition = try LayerFixture(PolicyTests.moe(.position, factor: 0.5, choices: 1), width: 9)
        outcomes.insert(try LayerPass(byPosition, byPosition.input(60)).kept)
        #expect(outcomes.count == 5)
    }

    /// Over many steps every token is dropped about as often as any other.
    @Test func `random selection favours nobody`() throws {
        let backend = CPUBackend(threadCount: 1)
        let (tokens, steps) = (20, 400)
        let ids = try backend.allocator.integers(Array(repeating: 0, count: tokens), Shape(tokens, 1))
        let kept = try backend.empty(Shape(tokens, 1), .i32)
        var stays = Array(repeating: 0, count: tokens)
        for step in 0..<steps {
            let stream = RandomStream(seed: 1, purpose: .tokenSelection, layer: 0, step: step)
            try backend.limitToCapacity(
                ids, experts: 2, groups: [0..<tokens], capacities: [5], priority: .random(stream, firstGlobalSlot: 0),
                into: kept)
            for (token, expert) in kept.array(of: Int32.self).enumerated() where expert >= 0 { stays[token] += 1 }
        }
        // 100 expected each, with a standard deviation of 8.7.
        #expect(stays.reduce(0, +) == 5 * steps)
        #expect(stays.allSatisfy { (60...140).contains($0) }, "\(stays)")
    }

    @Test(arguments: Order.allCases, [Float(0.5), 1, 2])
    func `grouped and padded banks agree`(_ order: Order, _ factor: Float) throws {
        for choices in [1, 2, 5] {
            let backend = CPUBackend(threadCount: 2)
            let fixtures = try ExpertBankKind.allCases.map {
                try LayerFixture(
                    PolicyTests.moe(order, factor: factor, choices: choices, bank: $0), width: 9, backend: backend)
            }
            let x = try fixtures[0].input(51)
            let dy = try fixtures[0].input(51, seed: 8)
            let passes = try fixtures.map {
                try LayerPass(
                    $0, x, dy: dy, LayerPass.Setting(layout: try $0.layout(PolicyTests.lengths), step: 2))
            }
            #expect(passes[0].kept == passes[1].kept)
            #expect(!passes[0].routing.decision.isPadded && passes[1].routing.decision.isPadded)
            expectClose(passes[1].output, passes[0].output.doubles, "output")
            expectClose(passes[2].output, passes[0].output.doubles, "block-sparse output")
            expectClose(
                try #require(passes[1].inputGradient), try #require(passes[0].inputGradient).doubles, "gradient of x")
            for (left, right) in zip(fixtures[0].store.parameters, fixtures[1].store.parameters) {
                expectClose(try #require(try right.gradient()), try #require(try left.gradient()).doubles, left.name)
            }
        }
    }

    @Test(arguments: Order.allCases, ExpertBankKind.allCases)
    func `a batch is the sum of its routing groups`(_ order: Order, _ bank: ExpertBankKind) throws {
        let fixture = try LayerFixture(PolicyTests.moe(order, factor: 0.7, bank: bank), width: 9)
        let x = try fixture.input(51)
        let dy = try fixture.input(51, seed: 8)
        func setting(_ lengths: [Int], first: Int) throws -> LayerPass.Setting {
            LayerPass.Setting(layout: try fixture.layout(lengths, first: first), step: 6, globalTokens: 51)
        }
        let whole = try LayerPass(fixture, x, dy: dy, setting(PolicyTests.lengths, first: 0))
        let gradients = try fixture.store.parameters.map { try $0.gradient()?.doubles ?? [] }
        var sums = gradients.map { $0.map { _ in 0.0 } }
        var values: [RouterLossKind: Double] = [:]
        // Micro-batches of the first two groups and of one each.
        for (groups, begin) in [(Array(PolicyTests.lengths[..<2]), 0), ([12], 8), ([31], 20)] {
            let range = begin..<begin + groups.reduce(0, +)
            let part = try LayerPass(fixture, x[range], dy: dy[range], setting(groups, first: begin))
            let slots = range.lowerBound * 2..<range.upperBound * 2
            #expect(part.chosen == Array(whole.chosen[slots]))
            #expect(part.kept == Array(whole.kept[slots]))
            expectSameBits(part.routing.weights.tensor, whole.routing.weights.tensor[range], "weights")
            expectClose(part.output, whole.output[range].doubles, within: 1e-6, "output")
            expectClose(
                try #require(part.inputGradient), try #require(whole.inputGradient)[range].doubles, within: 1e-5,
                "gradient of x")
            for kind in RouterLossKind.allCases { values[kind, default: 0] += try #require(part.value(kind)) }
            for (index, parameter) in fixture.store.parameters.enumerated() {
                let gradient = try #require(try parameter.gradient()).doubles
                for place in gradient.indices { sums[index][place] += gradient[place] }
            }
        }
        for kind in RouterLossKind.allCases {
            let value = try #require(whole.value(kind))
            #expect(abs(try #require(values[kind]) - value) < 1e-5 * value, "\(kind)")
        }
        for (index, parameter) in fixture.store.parameters.enumerated() {
            expectClose(gradients[index].map(Float.init), sums[index], within: 1e-5, parameter.name)
        }
    }
}
