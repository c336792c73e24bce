import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, E experts, K choices per token, C capacity.

/// DeepSpeed's own gating (`Tools/oracles/gating.py`) against the router and the capacity op.
@Suite struct DeepSpeedGatingTests {
    struct File: Decodable {
        let logits: [String: [[Float]]]
        let cases: [Case]
    }

    struct Case: Decodable {
        struct Settings: Decodable {
            let capacity_factor: Float?
            let min_capacity: Int?
            let drop_policy: String?
            let drop_tokens: Bool?
        }

        let function: String
        let logits: String
        let k: Int
        let settings: Settings
        let l_aux: Double
        let capacity: Int
        let exp_counts: [Int]
        let kept_by_position: Bool
        let kept: [[Double]]
        let draw: [[Float]]?

        var name: String { "\(function) \(logits) k \(k) \(settings)" }
        var drops: Bool { settings.drop_tokens ?? true }
        /// The rule by which `topk` breaks ties of equal masks is nobody's.
        var hasDefinedOrder: Bool { function != "top1gating" || kept_by_position || draw != nil || !drops }
        /// Top-1 keeps its score; the others, top-k with k = 1 too, divide by the sum of those kept.
        var renormalizes: Bool { function != "top1gating" }

        var policy: TokenPolicy {
            guard drops else { return .dropless }
            let order: TokenPolicy.DropOrder = settings.drop_policy == "probs" ? .probability : .position
            return .capacity(
                factor: settings.capacity_factor ?? 1, minimum: settings.min_capacity ?? 0, order: order)
        }

        /// What decides who stays, where that is not the router's own order: recorded draws, or, for top-k by position,
        /// tokens in order whatever the choice's rank.
        func priorities(tokens: Int, experts: Int) -> [Float]? {
            if let draw { return draw.flatMap { $0 } }
            guard drops, function == "topkgating", settings.drop_policy == "position", k > 1 else { return nil }
            return (0..<tokens * experts).map { Float(tokens - $0 / experts) }
        }
    }

    @Test func `all cases`() throws {
        let file = try golden("gating/deepspeed.json", as: File.self)
        #expect(file.cases.count == 179)
        var compared = 0
        for entry in file.cases {
            let logits = try #require(file.logits[entry.logits])
            try check(entry, logits)
            if entry.hasDefinedOrder { compared += 1 }
        }
        // The others are top-1 without draws where `topk` broke ties its own way.
        #expect(compared == 169)
    }

    private func check(_ entry: Case, _ logits: [[Float]]) throws {
        let (tokens, experts) = (logits.count, logits[0].count)
        let configuration = MoEConfiguration(
            experts: experts, choices: entry.k, width: 1,
            router: RouterConfiguration(renormalizes: entry.renormalizes), policy: entry.policy)
        let fixture = try LayerFixture(configuration, width: experts)
        // An identity for a weight: the input is the logits.
        try fixture.assign("gate", (0..<experts * experts).map { $0 / experts == $0 % experts ? 1 : 0 })
        let x = try fixture.backend.allocator.tensor(logits.flatMap { $0 }, Shape(tokens, experts))
        let pass = try LayerPass(fixture, x)

        #expect(pass.report.layers[0].choices.doubles == entry.exp_counts.map(Double.init), "\(entry.name)")
        let balance = try entry.function == "top2gating" ? firstChoiceBalance(fixture, pass) : pass.value(.balance)
        #expect(abs(try #require(balance) - entry.l_aux) < 1e-5 * entry.l_aux, "\(entry.name)")
        // DeepSpeed's capacity may exceed T; ours never does, and nobody could tell.
        let capacity = pass.routing.decision.capacities.first ?? entry.exp_counts.max() ?? 0
        #expect(capacity == (entry.drops ? min(entry.capacity, tokens) : entry.capacity), "\(entry.name)")

        let kept = try keptChoices(entry, fixture, pass)
        let rows = kept.array(of: Int32.self).map(Int.init)
        guard entry.hasDefinedOrder else {
            let wanted = (0..<experts).map { expert in entry.kept.count { Int($0[1]) == expert } }
            return #expect((0..<experts).map { expert in rows.count { $0 == expert } } == wanted, "\(entry.name)")
        }
        let weights = try fixture.backend.empty(kept.shape, .f32)
        let scores = try fixture.backend.empty(x.shape, .f32)
        try fixture.backend.softmax(x, into: scores)
        let rule = GateRule(isSoftmaxOfChosen: false, renormalizes: entry.renormalizes, scale: 1)
        try fixture.backend.gateWeights(scores, ids: kept, rule: rule, into: weights)
        if entry.priorities(tokens: tokens, experts: experts) == nil {
            expectSameBits(pass.routing.weights.tensor, weights, "\(entry.name), weights of the router")
        }
        var (found, wanted) = (
            Array(repeating: Float(-1), count: tokens * experts), Array(repeating: -1.0, count: tokens * experts)
        )
        for slot in rows.indices where rows[slot] >= 0 {
            found[slot / entry.k * experts + rows[slot]] = weights.floats()[slot]
        }
        for item in entry.kept { wanted[Int(item[0]) * experts + Int(item[1])] = item[3] }
        #expect(found.map { $0 < 0 } == wanted.map { $0 < 0 }, "\(entry.name): who stays")
        expectClose(found, wanted, within: 1e-6, "\(entry.name), weights")
        if entry.k <= 2, entry.function != "topkgating", entry.drops {
            try checkSlots(entry, fixture, kept, capacity: capacity)
        }
    }

    /// The kept choices (T, K): the router's, or those of the op with the case's own priorities.
    private func keptChoices(_ entry: Case, _ fixture: LayerFixture, _ pass: LayerPass) throws -> Tensor {
        let decision = pass.routing.decision
        guard let priorities = entry.priorities(tokens: decision.tokenCount, experts: decision.experts) else {
            return decision.kept
        }
        let scores = try fixture.backend.allocator.tensor(priorities, Shape(decision.tokenCount, decision.experts))
        let kept = try fixture.backend.empty(decision.ids.shape, .i32)
        try fixture.backend.limitToCapacity(
            decision.ids, experts: decision.experts, groups: [0..<decision.tokenCount], capacities: decision.capacities,
            priority: .score(scores), into: kept)
        return kept
    }

    /// DeepSpeed's top-2 loss counts the first of a token's two choices.
    private func firstChoiceBalance(_ fixture: LayerFixture, _ pass: LayerPass) throws -> Double {
        let (tokens, experts) = (pass.routing.decision.tokenCount, fixture.configuration.experts)
        let backend = fixture.backend
        let first = stride(from: 0, to: pass.chosen.count, by: 2).map { Int32(pass.chosen[$0]) }
        let counts = try backend.empty(Shape(1, experts), .f32)
        let ids = try backend.allocator.tensor(first, Shape(tokens, 1))
        try backend.countChoices(ids, groups: [0..<tokens], mask: nil, into: counts)
        let value = try backend.empty(Shape(1), .f32)
        let sums = try #require(pass.routing.probabilitySums).tensor
        try backend.balanceLoss(
            sums, counts: counts, scale: Float(experts) / Float(tokens), into: value, coefficient: 0, gradient: nil)
        return value.doubles[0]
    }

    /// Places in the padded layout: all first choices before all second choices.
    private func checkSlots(_ entry: Case, _ fixture: LayerFixture, _ kept: Tensor, capacity: Int) throws {
        let permutation = try fixture.backend.padToCapacity(
            kept, experts: fixture.configuration.experts, groups: [0..<kept.shape[0]], capacities: [capacity])
        let rows = permutation.slotToRow.array(of: Int32.self).map(Int.init)
        let experts = kept.array(of: Int32.self).map(Int.init)
        for item in entry.kept {
            let (token, expert) = (Int(item[0]), Int(item[1]))
            let slot = try #require((token * entry.k..<(token + 1) * entry.k).first { experts[$0] == expert })
            #expect(rows[slot] - expert * capacity == Int(item[2]), "\(entry.name): place of token \(token)")
        }
    }
}
