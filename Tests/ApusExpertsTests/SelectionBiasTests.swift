import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, E experts, K choices per token.

/// Balancing by a bias that no gradient moves (DeepSeek-V3).
@Suite struct SelectionBiasTests {
    private func fixture(rate: Float, losses: RouterLosses = RouterLosses()) throws -> LayerFixture {
        try LayerFixture(
            MoEConfiguration(
                experts: 6, choices: 2, width: 5,
                router: RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: rate), losses: losses),
            width: 9)
    }

    /// Ends a step in which the layer's passes made these choices.
    private func finish(_ fixture: LayerFixture, _ choices: [[Int]], scale: Float = 1) throws {
        let allocator = fixture.backend.allocator
        try fixture.router.finishStep(
            choices: choices.map { try allocator.tensor($0.map { Float($0) }, Shape($0.count / 6, 6)) },
            gradientScale: try allocator.tensor([scale], Shape(1)), backend: fixture.backend)
    }

    @Test func `a step adds the rate to the idle and takes it from the busy`() throws {
        let fixture = try fixture(rate: 0.25)
        try finish(fixture, [[10, 0, 4, 4, 4, 2]])
        #expect(try fixture.weights("bias") == [-0.25, 0.25, 0, 0, 0, 0.25])
        try finish(fixture, [[5, 5, 5, 5, 5, 5]])
        #expect(try fixture.weights("bias") == [-0.25, 0.25, 0, 0, 0, 0.25])
    }

    @Test func `the loads of a step are those of all its passes and groups`() throws {
        let fixture = try fixture(rate: 0.25)
        // 10, 0, 4, 4, 4, 2 again, in two passes, the first of two routing groups.
        try finish(fixture, [[4, 0, 0, 1, 4, 0, 1, 0, 3, 0, 0, 2], [5, 0, 1, 3, 0, 0]])
        #expect(try fixture.weights("bias") == [-0.25, 0.25, 0, 0, 0, 0.25])
    }

    @Test func `a step that was held back moves nothing`() throws {
        let fixture = try fixture(rate: 0.25)
        try finish(fixture, [[10, 0, 4, 4, 4, 2]], scale: .nan)
        #expect(try fixture.weights("bias") == [0, 0, 0, 0, 0, 0])
    }

    @Test func `steps lead to balance`() throws {
        let fixture = try fixture(rate: 0.01)
        let x = try fixture.input(300)
        // A feature that is always 1, and a router that likes two experts for it.
        var values = x.floats()
        for token in 0..<300 { values[token * 9] = 1 }
        x.assign(values)
        var gate = try fixture.weights("gate").map(Float.init)
        for expert in 0..<2 { gate[expert * 9] += 2 }
        try fixture.assign("gate", gate)
        func loads() throws -> [Int] { try LayerPass(fixture, x).report.layers[0].choices.doubles.map { Int($0) } }
        let before = try #require(try loads().max())
        for _ in 0..<150 { try finish(fixture, [try loads()]) }
        let after = try loads()
        #expect(before > 200)
        #expect(after.allSatisfy { (85..<115).contains($0) }, "\(after)")
    }

    @Test func `it moves the choice, weights keep the clean scores, and no gradient reaches it`() throws {
        let fixture = try fixture(rate: 0.1, losses: RouterLosses(balance: 1, z: 1, importance: 1))
        let x = try fixture.input(40)
        let dy = try fixture.input(40, seed: 8)
        let trace = RoutingTrace()
        let free = try LayerPass(fixture, x, LayerPass.Setting(trace: trace))
        try fixture.assign("bias", [5, 0, 0, 0, -5, 0])
        let biased = try LayerPass(fixture, x, dy: dy)
        for token in 0..<40 {
            let choices = biased.chosen[2 * token..<2 * token + 2]
            #expect(choices.first == 0 && !choices.contains(4))
        }
        #expect(try fixture.gradient("bias").allSatisfy { $0 == 0 })
        #expect(try fixture.gradient("gate").contains { $0 != 0 })
        // With the choice held, the bias changes no bit.
        let replayed = try LayerPass(fixture, x, LayerPass.Setting(trace: trace.replay()))
        expectSameBits(replayed.routing.weights.tensor, free.routing.weights.tensor, "weights")
        expectSameBits(replayed.output, free.output, "output")
    }

    @Test func `without a rate nothing moves`() throws {
        let fixture = try LayerFixture(
            MoEConfiguration(experts: 6, choices: 2, width: 5, router: RouterConfiguration(scoring: .sigmoid)), width: 9
        )
        #expect(fixture.router.selectionBias == nil)
        try finish(fixture, [[9, 0, 0, 0, 0, 0]])
    }
}
