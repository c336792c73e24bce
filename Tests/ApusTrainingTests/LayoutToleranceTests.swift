import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTestSupport
import Testing

@testable import ApusTraining

/// How far a layout may be from one rank.
struct LayoutToleranceTests {
    private func findings(adamW: Double, hasKinks: Bool) throws -> LayoutFindings {
        let layout = LayoutCase(model: TrainingCase.all[3].model, data: 2)
        return LayoutFindings(
            layout: try layout.recipe.layout(ranks: 2), precision: .f32,
            parameters: [
                .init(
                    name: "up_proj", role: .dense, gradientNorm: 1, gradient: 1e-7, descentNorm: 1, descent: 1e-7,
                    adamWNorm: 1, adamW: adamW)
            ], losses: [.init(run: "AdamW", step: 1, found: 1, expected: 1)],
            choices: .init(compared: 0, count: 0, differing: []), isReplayed: true, hasKinks: hasKinks)
    }

    @Test(arguments: [(5e-5, true, true), (2e-4, true, false), (2e-3, false, false)])
    func `a value that crosses a kink is allowed for, a wrong step is not`(
        _ difference: Double, _ agrees: Bool, _ agreesWithout: Bool
    ) throws {
        #expect(try findings(adamW: difference, hasKinks: true).agrees == agrees)
        #expect(try findings(adamW: difference, hasKinks: false).agrees == agreesWithout)
    }

    @Test(arguments: [Activation.relu, .gelu, .swiglu])
    func `a model has kinks where an activation has`(_ activation: Activation) throws {
        let model = TrainingCase.decoder(
            TrainingCase.moe(activation: activation, losses: RouterLosses(balance: 0.02)))
        let found = try LayoutCase(model: model, data: 2).verify()
        #expect(found.hasKinks == (activation == .relu) && found.agrees)
    }
}
