import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport

// Shape letters: T tokens, D model width, G routing groups, E experts.

/// One forward pass of a fixture's layer, and its backward when asked for.
struct LayerPass {
    /// (T, D).
    let output: Tensor
    /// The routing.
    let routing: Routing
    /// What the layer told of itself.
    let report: RoutingReport
    /// (T, D), after a backward.
    let inputGradient: Tensor?

    /// How a pass is run; every field has a default.
    struct Setting {
        var layout: TokenLayout?
        var trace: RoutingTrace?
        /// The training step; `nil` for a pass outside training.
        var step: Int? = 1
        var seed: UInt64 = 3
        var globalTokens: Int?
        var isEvaluation = false
    }

    /// Runs forward, and backward from the gradient `dy` (T, D) when there is one, into cleared gradients.
    init(_ fixture: LayerFixture, _ x: Tensor, dy: Tensor? = nil, _ setting: Setting = Setting()) throws {
        let backend = fixture.backend
        let tape = Tape(backend: backend, isRecording: dy != nil)
        report = RoutingReport()
        let context = MoEContext(
            forward: ForwardContext(
                tape: tape, layout: try setting.layout ?? fixture.layout([x.shape[0]]), trainingStep: setting.step,
                seed: setting.seed),
            trace: setting.trace, report: report, globalTokens: setting.globalTokens,
            isEvaluation: setting.isEvaluation)
        let input = tape.leaf(x)
        let result = try fixture.layer(input, context)
        output = result.hidden.tensor
        routing = result.routing
        guard let dy else {
            inputGradient = nil
            return
        }
        fixture.clearGradients()
        try tape.addRoot(result.hidden, seed: dy)
        try tape.backward()
        inputGradient = tape.gradient(of: input)
    }

    /// A reported loss before its coefficient.
    func value(_ kind: RouterLossKind) -> Double? { report.layers[0].losses[kind].map { $0.doubles[0] } }

    /// (T, K) of the choices that are kept.
    var kept: [Int] { routing.decision.kept.array(of: Int32.self).map(Int.init) }
    /// (T, K) of all choices.
    var chosen: [Int] { routing.decision.ids.array(of: Int32.self).map(Int.init) }
}

extension RouterLosses {
    /// The weighted sum of the losses that a pass reports.
    func total(_ pass: LayerPass) -> Double {
        let parts: [(Float, RouterLossKind)] = [(balance, .balance), (z, .z), (importance, .importance)]
        return parts.reduce(0) { $0 + Double($1.0) * (pass.value($1.1) ?? 0) }
    }
}
