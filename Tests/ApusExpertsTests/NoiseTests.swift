import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, E experts, K choices per token.

/// Jitter and Gumbel noise: in training only, keyed by (seed, step, layer, place in the global batch).
@Suite struct NoiseTests {
    typealias Scoring = RouterConfiguration.Scoring

    /// The kinds of noise.
    enum Noise: String, CaseIterable, Sendable {
        case jitter, gumbel
    }

    private func fixture(
        _ noise: Noise?, _ scoring: Scoring = .softmaxThenTopK, index: Int = 0, precision: Precision = .f32
    ) throws -> LayerFixture {
        let router = RouterConfiguration(
            scoring: scoring, jitter: noise == .jitter ? 0.3 : 0, gumbel: noise == .gumbel)
        let fixture = try LayerFixture(
            MoEConfiguration(experts: 6, choices: 2, width: 5, router: router), width: 9, index: index,
            precision: precision)
        // The same weights in every layer.
        try fixture.assign("gate", randomValues(54, seed: 4, scale: 0.5))
        return fixture
    }

    @Test(arguments: Noise.allCases, Scoring.allCases)
    func `none outside training`(_ noise: Noise, _ scoring: Scoring) throws {
        let (noisy, plain) = (try fixture(noise, scoring), try fixture(nil, scoring))
        let x = try plain.input(50)
        let expected = try LayerPass(plain, x, LayerPass.Setting(step: nil))
        let pass = try LayerPass(noisy, x, LayerPass.Setting(step: nil))
        #expect(pass.chosen == expected.chosen)
        expectSameBits(pass.routing.weights.tensor, expected.routing.weights.tensor, "weights")
        expectSameBits(pass.output, expected.output, "output")
        let trained = try LayerPass(noisy, x, LayerPass.Setting(step: 0))
        #expect(trained.chosen != expected.chosen)
    }

    @Test(arguments: Noise.allCases)
    func `another seed, step or layer draws anew, the same ones again`(_ noise: Noise) throws {
        func bits(step: Int = 1, seed: UInt64 = 1, index: Int = 0) throws -> [UInt32] {
            let fixture = try fixture(noise, index: index)
            let pass = try LayerPass(fixture, fixture.input(50), LayerPass.Setting(step: step, seed: seed))
            return pass.routing.decision.ids.bits + pass.routing.weights.tensor.bits
        }
        let first = try bits()
        #expect(try bits() == first)
        #expect(Set([first, try bits(step: 2), try bits(seed: 2), try bits(index: 1)]).count == 4)
    }

    @Test(arguments: Noise.allCases, [1, 17, 49])
    func `draws do not know how the batch is cut`(_ noise: Noise, _ cut: Int) throws {
        let fixture = try fixture(noise)
        let x = try fixture.input(50)
        let whole = try LayerPass(fixture, x, LayerPass.Setting(step: 1))
        for range in [0..<cut, cut..<50] {
            let layout = try fixture.layout([range.count], first: range.lowerBound)
            let part = try LayerPass(fixture, x[range], LayerPass.Setting(layout: layout, step: 1))
            #expect(part.chosen == Array(whole.chosen[2 * range.lowerBound..<2 * range.upperBound]))
            expectClose(
                part.routing.weights.tensor, whole.routing.weights.tensor[range].doubles, within: 1e-6, "weights")
        }
    }

    @Test(arguments: Scoring.allCases)
    func `Gumbel noise moves the choice, weights keep the clean scores`(_ scoring: Scoring) throws {
        let (noisy, plain) = (try fixture(.gumbel, scoring), try fixture(nil, scoring))
        let x = try plain.input(50)
        let pass = try LayerPass(noisy, x, LayerPass.Setting(step: 1))
        let logits = try noisy.backend.empty(Shape(50, 6), .f32)
        try noisy.router.weight.withWeights(on: noisy.backend.stream) {
            try noisy.backend.matMul(x.matrix, $0.transpose, into: logits)
        }
        let scores = try noisy.backend.empty(logits.shape, .f32)
        if scoring == .sigmoid {
            try noisy.backend.sigmoid(logits, into: scores)
        } else {
            try noisy.backend.softmax(logits, into: scores)
        }
        let weights = try noisy.backend.empty(Shape(50, 2), .f32)
        let rule = GateRule(isSoftmaxOfChosen: scoring == .topKThenSoftmax, renormalizes: false, scale: 1)
        try noisy.backend.gateWeights(
            scoring == .topKThenSoftmax ? logits : scores, ids: pass.routing.decision.ids, rule: rule, into: weights)
        expectSameBits(pass.routing.weights.tensor, weights, "weights")
    }

    /// The Gumbel-max trick: the first choice is a draw from the softmax of the logits, whatever the scoring.
    @Test(arguments: Scoring.allCases)
    func `Gumbel choices follow the softmax`(_ scoring: Scoring) throws {
        let fixture = try fixture(.gumbel, scoring)
        let gate: [Float] = [2, 1, 0, 0, -1, -3]
        try fixture.assign("gate", gate.flatMap { [$0] + Array(repeating: 0, count: 8) })
        let tokens = 4000
        let x = try fixture.backend.allocator.tensor(Array(repeating: Float(1), count: tokens * 9), Shape(tokens, 9))
        let pass = try LayerPass(fixture, x, LayerPass.Setting(step: 1))
        let logits = try fixture.backend.allocator.tensor(gate, Shape(1, 6))
        try fixture.backend.softmax(logits, into: logits)
        for expert in 0..<6 {
            let share =
                Double(stride(from: 0, to: 2 * tokens, by: 2).count { pass.chosen[$0] == expert }) / Double(tokens)
            #expect(abs(share - logits.doubles[expert]) < 0.035, "expert \(expert): \(share)")
        }
    }

    /// `bf16` would round factors near 1 to a handful of values; they are drawn and multiplied in `f32`.
    @Test func `jitter keeps its resolution in bf16`() throws {
        let (narrow, wide) = (try fixture(.jitter, precision: .bf16), try fixture(.jitter))
        let x = try narrow.input(50)
        let same = try wide.backend.allocator.tensor(x.floats(), x.shape)
        let pass = try LayerPass(narrow, x, dy: try narrow.input(50, seed: 8), LayerPass.Setting(step: 1))
        let expected = try LayerPass(wide, same, LayerPass.Setting(step: 1))
        #expect(pass.chosen == expected.chosen)
        expectClose(pass.routing.weights.tensor, expected.routing.weights.tensor.doubles, within: 1e-6, "weights")
        #expect(try #require(pass.inputGradient).dtype == .bf16)
    }
}
