import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Models with some of their experts.
@Suite struct PruningTests {
    private let fixture: SurgeryFixture

    init() throws { fixture = try SurgeryFixture() }

    @Test func `rows and experts that stay are cut out and numbered anew`() throws {
        let change = { (moe: inout MoEConfiguration) in
            moe.isResidual = true
            moe.router = RouterConfiguration(scoring: .sigmoid, biasRate: 0.01)
        }
        let source = try fixture.store(SurgeryFixture.mixture([5, 3], change), as: "source", .bf16) { model in
            try fixture.set("model.layers.0.mlp.gate.e_score_correction_bias", of: model, to: [0, 1, 2, 3, 4])
        }
        let scores = ExpertScores([0: [0.5, 0.1, 0.9, 0.2, 0.6], 1: [3, 1, 2]])
        let pruning = try Pruning(of: source, by: scores, keeping: .eachLayer(3))
        #expect(pruning.kept == [0: [0, 2, 4], 1: [0, 1, 2]])
        let made = try fixture.write(pruning.surgery(of: source), as: "made")
        let model = made.configuration.configuration
        #expect(model.feedForward.indices.map { model.moe(layer: $0)?.experts } == [3, 3])
        let prefix = "model.layers.0.mlp"
        let rows = try source.values("\(prefix).gate.weight")
        #expect(try made.values("\(prefix).gate.weight") == [0, 2, 4].flatMap { rows[$0 * 16..<($0 + 1) * 16] })
        #expect(try made.values("\(prefix).gate.e_score_correction_bias") == [0, 2, 4])
        for (new, old) in [0, 2, 4].enumerated() {
            for matrix in ["gate_proj", "up_proj", "down_proj"] {
                #expect(
                    try made.values("\(prefix).experts.\(new).\(matrix).weight")
                        == source.values("\(prefix).experts.\(old).\(matrix).weight"))
            }
        }
        for name in try source.names() where !name.contains(".mlp.experts.") && !name.contains(".gate.") {
            #expect(try made.values(name) == source.values(name), "\(name)")
        }
        #expect(try made.names().count == source.names().count - 2 * 3)
    }

    @Test func `groups of experts and states that are two are minded`() throws {
        let grouped = SurgeryFixture.mixture([6]) { moe in
            moe.router.groupLimit = GroupLimit(groups: 3, chosen: 2, score: .best)
        }
        let source = try fixture.store(grouped, as: "grouped")
        #expect(throws: SurgeryError.groupedExperts(folder: source.path, layer: 0, groups: 3)) {
            try Pruning.requirePrunable(source, .eachLayer(3))
        }
        #expect(throws: SurgeryError.groupedExperts(folder: source.path, layer: 0, groups: 3)) {
            try Aggregation().surgery(of: source, source)
        }
        var dual = SurgeryFixture.mixture([4, 4]) { moe in
            (moe.choices, moe.shortcut) = (1, ShortcutConfiguration(isDual: true))
        }
        dual.feedForward[0] = .dense(width: 14)
        let twice = try fixture.store(dual, as: "twice")
        #expect(throws: SurgeryError.belowChoices(folder: twice.path, layer: 1, kept: 1, choices: 2)) {
            try Pruning.requirePrunable(twice, .eachLayer(1))
        }
        try Pruning.requirePrunable(twice, .eachLayer(2))
    }

    @Test func `experts that no token chooses are not missed`() throws {
        let configuration = SurgeryFixture.mixture([4]) { moe in
            moe.router = RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.01)
        }
        let source = try fixture.store(configuration, as: "source") { model in
            try fixture.set("model.layers.0.mlp.gate.e_score_correction_bias", of: model, to: [-100, 0, -100, 0])
        }
        let pruning = try Pruning(of: source, by: ExpertScores([0: [0, 2, 0, 1]]), keeping: .eachLayer(2))
        let made = try fixture.write(pruning.surgery(of: source), as: "made")
        try expectClose(fixture.logits(made), fixture.logits(source).map(Double.init), within: 1e-6, "logits")
        // And those that they do choose are.
        let wrong = try Pruning(of: source, by: ExpertScores([0: [2, 1, 0, 0]]), keeping: .eachLayer(2))
        let other = try fixture.write(wrong.surgery(of: source), as: "other")
        #expect(relativeError(try fixture.logits(other), try fixture.logits(source)) > 1e-3)
    }

    @Test func `a share of all experts goes where the scores are highest, and leaves what a token chooses`() throws {
        let source = try fixture.store(SurgeryFixture.mixture([4, 4]), as: "source")
        func kept(_ share: Double, _ scores: [Int: [Double]]) throws -> [Int: [Int]] {
            try Pruning(of: source, by: ExpertScores(scores), keeping: .share(share)).kept
        }
        let lopsided: [Int: [Double]] = [0: [9, 8, 7, 6], 1: [0.1, 0.4, 0.2, 0.3]]
        #expect(try kept(0.5, lopsided) == [0: [0, 1], 1: [1, 3]])
        #expect(try kept(0.75, lopsided) == [0: [0, 1, 2, 3], 1: [1, 3]])
        // 0.8 of 8 is 6.4: 6 stay.
        #expect(try kept(0.8, [0: [1, 5, 1, 5], 1: [5, 1, 5, 2]]) == [0: [0, 1, 3], 1: [0, 2, 3]])
        // Of equals the first.
        #expect(try kept(0.625, [0: [1, 1, 1, 1], 1: [1, 1, 1, 1]]) == [0: [0, 1, 2], 1: [0, 1]])
    }

    @Test func `layers that come to differ are no longer pooled`() throws {
        let configuration = SurgeryFixture.mixture { $0.losses = RouterLosses(balance: 0.01, scope: .pooled) }
        let source = try fixture.store(configuration, as: "source")
        let scores = ExpertScores([0: [4, 3, 2, 1], 1: [0, 0, 0, 0]])
        let even = try Pruning(of: source, by: scores, keeping: .eachLayer(3)).surgery(of: source)
        #expect(even.configuration.moe(layer: 0)?.losses.scope == .pooled)
        let uneven = try Pruning(of: source, by: scores, keeping: .share(0.75)).surgery(of: source)
        #expect(
            uneven.configuration.feedForward.indices.map { uneven.configuration.moe(layer: $0)?.experts } == [4, 2])
        #expect(uneven.configuration.moe(layer: 1)?.losses.scope == .layer)
    }

    @Test func `too few experts are refused by name`() throws {
        let source = try fixture.store(SurgeryFixture.mixture([4, 6]), as: "source")
        let dense = try fixture.store(SurgeryFixture.dense(), as: "dense")
        func error(_ budget: ExpertBudget, _ folder: ModelFolder? = nil) -> SurgeryError? {
            surgeryError { try Pruning.requirePrunable(folder ?? source, budget) }
        }
        #expect(error(.eachLayer(1)) == .belowChoices(folder: source.path, layer: 0, kept: 1, choices: 2))
        #expect(error(.eachLayer(6)) == .nothingToPrune(folder: source.path, most: 6))
        #expect(error(.eachLayer(5)) == nil)
        #expect(error(.share(0.3)) == .belowAllChoices(folder: source.path, kept: 3, experts: 10, needed: 4))
        #expect(error(.share(0.3))?.description.contains("at least 0.4") == true)
        #expect(error(.share(0.4)) == nil)
        #expect(error(.share(1)) == .nothingToPrune(folder: source.path, most: 6))
        guard case .wrongOption? = error(.share(0)), case .wrongOption? = error(.share(.nan)) else {
            Issue.record("a share of nothing was taken")
            return
        }
        #expect(error(.eachLayer(2), dense) == .noMixture(folder: dense.path))
    }

    @Test func `a router of other tensors is not cut`() throws {
        func tensor(_ name: String) -> ParameterDescription {
            ParameterDescription(
                name: "model.layers.3.mlp.\(name)", shape: [4, 8], role: .router, layer: 3, expert: nil)
        }
        for name in ["gate.weight", "gate.e_score_correction_bias"] {
            guard case .eachExpert? = RouterTensor(tensor(name)) else {
                Issue.record("\(name)")
                continue
            }
        }
        for name in ["gate.projection", "node_gate.weight", "gate.weight.scale"] {
            #expect(RouterTensor(tensor(name)) == nil)
        }
    }

    @Test func `routers' norms say who has learnt`() throws {
        let configuration = SurgeryFixture.mixture([3])
        let name = "model.layers.0.mlp.gate.weight"
        func rows(_ lengths: [Float]) -> [Float] {
            lengths.flatMap { [$0 * 0.6] + [Float](repeating: 0, count: 14) + [$0 * 0.8] }
        }
        let base = try fixture.store(configuration, as: "base", .bf16) {
            try fixture.set(name, of: $0, to: rows([1, 2, 3]))
        }
        let tuned = try fixture.store(configuration, as: "tuned", seed: 4) {
            try fixture.set(name, of: $0, to: rows([1.5, 2.25, 2]))
        }
        let scores = try ExpertScores(routerNormsOf: tuned, since: base, backend: fixture.backend)
        let found = try #require(scores.values[0]).map { Float($0) }
        expectClose(found, [0.5, 0.25, 1], within: 1e-6, "norms")
        #expect(try Pruning(of: tuned, by: scores, keeping: .eachLayer(2)).kept == [0: [0, 2]])
        let other = try fixture.store(SurgeryFixture.mixture([4]), as: "other")
        let error = surgeryError {
            _ = try ExpertScores(routerNormsOf: tuned, since: other, backend: fixture.backend)
        }
        #expect(
            error
                == .otherBase(
                    folder: tuned.path, base: other.path, key: "feed_forward[0].experts", own: "3", other: "4"))
    }

    @Test func `utilization is a share of the layer's choices, and random follows from the seed`() throws {
        let scores = ExpertScores(utilization: [0: [1, 3, 0, 0], 2: [0, 0]])
        #expect(scores.values == [0: [0.25, 0.75, 0, 0], 2: [0, 0]])
        let model = SurgeryFixture.mixture([64, 64])
        let (one, again) = (ExpertScores(randomOf: model, seed: 1), ExpertScores(randomOf: model, seed: 1))
        let other = ExpertScores(randomOf: model, seed: 2)
        #expect(one == again && one != other && one.values[0] != one.values[1])
        #expect(Set(try #require(one.values[0])).count > 60)
    }
}
