import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, E experts.

/// Groups of the balance loss that are larger than routing groups: the loss is formed over them, and nothing else.
@Suite struct BalanceGroupTests {
    private static let lengths = [5, 9, 3, 7]

    private func layout(_ fixture: LayerFixture, routing: Int, balance: Int?) throws -> TokenLayout {
        try TokenLayout.sequences(
            Self.lengths, groupSize: routing, balanceSize: balance, backend: fixture.backend)
    }

    @Test func `groups are made of whole sequences, the last perhaps of fewer`() throws {
        let fixture = try LayerFixture(MoEConfiguration(experts: 2, choices: 1, width: 3), width: 4)
        let layout = try layout(fixture, routing: 1, balance: 3)
        #expect(layout.routingGroups == [0..<5, 5..<14, 14..<17, 17..<24])
        #expect(layout.balanceGroups == [0..<17, 17..<24])
        #expect(try self.layout(fixture, routing: 2, balance: nil).balanceGroups == [0..<14, 14..<24])
    }

    @Test func `balance is formed over its groups, capacity and importance over routing groups`() throws {
        let configuration = MoEConfiguration(
            experts: 4, choices: 2, width: 5, policy: .capacity(factor: 0.75, minimum: 1, order: .position),
            losses: RouterLosses(balance: 1, importance: 1))
        let fixture = try LayerFixture(configuration, width: 8)
        let x = try fixture.input(24)
        func pass(_ routing: Int, _ balance: Int?) throws -> LayerPass {
            let layout = try layout(fixture, routing: routing, balance: balance)
            return try LayerPass(fixture, x, LayerPass.Setting(layout: layout))
        }
        let (small, mixed, large) = (try pass(1, nil), try pass(1, 2), try pass(2, nil))
        #expect(mixed.kept == small.kept && mixed.kept != large.kept)
        #expect(mixed.value(.importance) == small.value(.importance))
        #expect(mixed.value(.balance) == large.value(.balance))
        #expect(mixed.value(.balance) != small.value(.balance))
    }

    @Test func `the gradient is that of the loss`() throws {
        // Without weights for the output, only the balance loss reaches the router.
        let configuration = MoEConfiguration(
            experts: 4, choices: 1, width: 5, losses: RouterLosses(balance: 0.7))
        let fixture = try LayerFixture(configuration, width: 8)
        let x = try fixture.input(24)
        let none = try fixture.backend.zeros(x.shape, .f32)
        func gradients(_ routing: Int, _ balance: Int?) throws -> (gate: [Float], x: [Float]) {
            let setting = LayerPass.Setting(layout: try layout(fixture, routing: routing, balance: balance))
            let pass = try LayerPass(fixture, x, dy: none, setting)
            return (try fixture.gradient("gate"), try #require(pass.inputGradient).floats())
        }
        let (mixed, large, small) = (try gradients(1, 2), try gradients(2, nil), try gradients(1, nil))
        #expect(mixed.gate == large.gate && mixed.x == large.x)
        #expect(mixed.gate != small.gate && mixed.x != small.x)
        #expect(mixed.gate.contains { $0 != 0 })
    }
}
