import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

/// The layer against its definition, token by token.
@Suite struct PerTokenTests {
    typealias Scoring = RouterConfiguration.Scoring

    @Test(arguments: Scoring.allCases, Activation.allCases)
    func `every token is the weighted sum of its experts`(_ scoring: Scoring, _ activation: Activation) throws {
        let backend = CPUBackend(threadCount: 2)
        for choices in 1...5 {
            for renormalizes in [false, true] {
                let configuration = MoEConfiguration(
                    experts: 5, choices: choices, width: 7, activation: activation,
                    router: RouterConfiguration(
                        scoring: scoring, renormalizes: renormalizes, weightScale: renormalizes ? 2.5 : 1))
                let fixture = try LayerFixture(configuration, width: 13, backend: backend)
                for tokens in [1, 7, 100, 600] { try check(fixture, tokens) }
            }
        }
    }

    @Test(arguments: [(0, true), (11, false), (11, true)], Activation.allCases)
    func `shared and residual experts join in`(_ parts: (shared: Int, residual: Bool), _ activation: Activation) throws
    {
        let configuration = MoEConfiguration(
            experts: 3, choices: 2, width: 9, activation: activation, sharedWidth: parts.shared,
            isResidual: parts.residual)
        let fixture = try LayerFixture(configuration, width: 17)
        for tokens in [1, 7, 100, 600] { try check(fixture, tokens) }
    }

    @Test func `an expert wider than the model`() throws {
        for experts in [1, 2, 33] {
            let configuration = MoEConfiguration(experts: experts, choices: 1, width: 129)
            try check(try LayerFixture(configuration, width: 65), 101)
        }
    }

    private func check(_ fixture: LayerFixture, _ tokens: Int) throws {
        let x = try fixture.input(tokens)
        let expected = try PerTokenReference(fixture: fixture).output(x.doubles)
        let configuration = fixture.configuration
        expectClose(
            try LayerPass(fixture, x).output, expected, within: 1e-5,
            "T \(tokens), K \(configuration.choices), \(configuration.router)")
    }
}
