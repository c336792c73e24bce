import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, E experts, K choices per token.

/// Loads that a balanced router never makes.
@Suite struct EdgeCaseTests {
    /// How tokens fall on five experts; expert 3 or everything but expert 2 gets none.
    enum Load: String, CaseIterable, Sendable {
        case idleExpert, oneExpert, oneToken, everyExpert, oddTokens
    }

    /// How the layer computes them.
    enum Form: String, CaseIterable, Sendable {
        case grouped, padded, chunked, blockSparse
    }

    private func fixture(_ load: Load, _ form: Form) throws -> (fixture: LayerFixture, x: Tensor) {
        let choices = load == .everyExpert ? 5 : load == .oneExpert ? 1 : 2
        let configuration = MoEConfiguration(
            experts: 5, choices: choices, width: 7,
            policy: form == .padded ? .capacity(factor: 5, minimum: 1, order: .position) : .dropless,
            bank: form == .padded ? .padded : form == .blockSparse ? .blockSparse : .grouped,
            losses: RouterLosses(balance: 0.5, z: 0.1, importance: 0.3))
        let fixture = try LayerFixture(configuration, width: 9, chunks: form == .chunked ? 3 : 1)
        let tokens = load == .oneToken ? 1 : 43
        let x = try fixture.input(tokens)
        var gate = try fixture.weights("gate").map(Float.init)
        // The first feature is always 1, so its column of the weight is a bias.
        var values = x.floats()
        for token in 0..<tokens { values[token * 9] = 1 }
        x.assign(values)
        if load == .idleExpert { gate[3 * 9] = -60 }
        if load == .oneExpert { gate[2 * 9] = 60 }
        try fixture.assign("gate", gate)
        return (fixture, x)
    }

    @Test(arguments: Load.allCases, Form.allCases)
    func `outputs, gradients and untouched experts`(_ load: Load, _ form: Form) throws {
        let (fixture, x) = try fixture(load, form)
        let dy = try fixture.input(x.shape[0], seed: 8)
        let trace = RoutingTrace()
        let pass = try LayerPass(fixture, x, dy: dy, LayerPass.Setting(trace: trace))
        expectClose(
            pass.output, try PerTokenReference(fixture: fixture).output(x.doubles), within: 1e-5, "\(load) \(form)")
        #expect(pass.kept == pass.chosen)
        let touched = Set(pass.kept)
        switch load {
        case .idleExpert: #expect(touched == [0, 1, 2, 4])
        case .oneExpert: #expect(touched == [2])
        case .oneToken: #expect(touched.count == 2)
        case .everyExpert, .oddTokens: #expect(touched.count == 5)
        }
        for expert in 0..<5 {
            for name in ["gate", "up", "down"] {
                let gradient = try fixture.gradient("\(expert).\(name)")
                let isTouched = gradient.contains { $0 != 0 }
                #expect(gradient.allSatisfy { $0.isFinite })
                #expect(isTouched == touched.contains(expert), "\(load) \(form) \(expert).\(name)")
            }
        }
        let gradient = try #require(pass.inputGradient).floats()
        try GradientCheck().expect(gradient, of: x, "\(load) \(form)") {
            let again = try LayerPass(fixture, x, LayerPass.Setting(trace: trace.replay()))
            return weightedSum(again.output, dy) + fixture.configuration.losses.total(again)
        }
        let rows = pass.report.layers[0].rows.array(of: Int32.self).map(Int.init)
        #expect(rows == (0..<5).map { expert in pass.kept.count { $0 == expert } })
    }

    /// A capacity of nothing leaves tokens with no expert at all: the layer adds 0 for them, and nothing flows back.
    @Test(arguments: ExpertBankKind.allCases, [false, true])
    func `tokens that every expert drops`(_ bank: ExpertBankKind, _ renormalizes: Bool) throws {
        let configuration = MoEConfiguration(
            experts: 4, choices: 2, width: 5, router: RouterConfiguration(renormalizes: renormalizes),
            policy: .capacity(factor: 0.25, minimum: 0, order: .position), bank: bank)
        let fixture = try LayerFixture(configuration, width: 6)
        let x = try fixture.input(24)
        let pass = try LayerPass(fixture, x, dy: try fixture.input(24, seed: 8))
        let gradient = try #require(pass.inputGradient)
        var dropped = 0
        for token in 0..<24 where pass.kept[2 * token] < 0 && pass.kept[2 * token + 1] < 0 {
            dropped += 1
            #expect(pass.output[token..<token + 1].floats().allSatisfy { $0 == 0 })
            #expect(gradient[token..<token + 1].floats().allSatisfy { $0 == 0 })
        }
        #expect(dropped >= 12)
        #expect(pass.output.floats().allSatisfy { $0.isFinite } && gradient.floats().allSatisfy { $0.isFinite })
    }

    @Test func `a replayed decision stands whatever the scores`() throws {
        let fixture = try LayerFixture(MoEConfiguration(experts: 5, choices: 2, width: 7), width: 9)
        let trace = RoutingTrace()
        let first = try LayerPass(fixture, fixture.input(20), LayerPass.Setting(trace: trace))
        let other = try fixture.input(20, seed: 99)
        let free = try LayerPass(fixture, other)
        let replayed = try LayerPass(fixture, other, LayerPass.Setting(trace: trace.replay()))
        #expect(free.chosen != first.chosen)
        #expect(replayed.chosen == first.chosen)
        #expect(replayed.routing.weights.tensor.bits != first.routing.weights.tensor.bits)
    }
}
