import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// Dropout of experts' hidden activations: in training alone, drawn by a slot's place in the global batch.
@Suite struct ExpertDropoutTests {
    static func moe(
        _ dropout: Float, bank: ExpertBankKind = .grouped, policy: TokenPolicy = .dropless
    ) -> MoEConfiguration {
        MoEConfiguration(
            experts: 5, choices: 2, width: 7, activation: .relu, policy: policy, bank: bank, sharedWidth: 3,
            dropout: dropout)
    }

    @Test func `none outside training`() throws {
        let (dropping, plain) = (
            try LayerFixture(Self.moe(0.4), width: 9), try LayerFixture(Self.moe(0), width: 9)
        )
        let x = try plain.input(40)
        let expected = try LayerPass(plain, x, LayerPass.Setting(step: nil)).output
        expectSameBits(try LayerPass(dropping, x, LayerPass.Setting(step: nil)).output, expected, "output")
        #expect(try LayerPass(dropping, x, LayerPass.Setting(step: 1)).output.floats() != expected.floats())
    }

    /// Each slot from its definition, with draws taken word by word.
    @Test func `hidden units are dropped as their place says`() throws {
        var configuration = Self.moe(0.4)
        configuration.sharedWidth = 0
        let fixture = try LayerFixture(configuration, width: 9)
        let (tokens, first) = (30, 100_000)
        let x = try fixture.input(tokens)
        let layout = try fixture.layout([tokens], first: first)
        let pass = try LayerPass(fixture, x, LayerPass.Setting(layout: layout, step: 6, seed: 11))
        let stream = RandomStream(seed: 11, purpose: .expertDropout, layer: 0, step: 6)
        let (rows, weights) = (x.doubles, pass.routing.weights.tensor.doubles)
        var expected = Array(repeating: 0.0, count: tokens * 9)
        for slot in 0..<2 * tokens {
            let (up, down) = (
                try fixture.weights("\(pass.chosen[slot]).up"), try fixture.weights("\(pass.chosen[slot]).down")
            )
            for f in 0..<7 {
                let index = UInt64((2 * first + slot) * 7 + f)
                let draw = (Double(stream.word(at: index) >> 9) + 0.5) / Double(1 << 23)
                guard draw >= Double(Float(0.4)) else { continue }
                let h = (0..<9).reduce(0.0) { $0 + up[f * 9 + $1] * rows[slot / 2 * 9 + $1] }
                for d in 0..<9 { expected[slot / 2 * 9 + d] += weights[slot] * down[d * 7 + f] * max(h, 0) / 0.6 }
            }
        }
        expectClose(pass.output, expected, within: 1e-5, "output")
    }

    @Test(arguments: [1, 13])
    func `draws do not know how the batch is cut`(_ cut: Int) throws {
        let fixture = try LayerFixture(Self.moe(0.4), width: 9)
        let x = try fixture.input(40)
        let whole = try LayerPass(fixture, x, LayerPass.Setting(step: 1))
        for range in [0..<cut, cut..<40] {
            let layout = try fixture.layout([range.count], first: range.lowerBound)
            let part = try LayerPass(fixture, x[range], LayerPass.Setting(layout: layout, step: 1))
            expectClose(part.output, whole.output[range].doubles, within: 1e-6, "output")
        }
    }

    @Test(arguments: [2, 7])
    func `chunks and padding change nothing`(_ chunks: Int) throws {
        let policy = TokenPolicy.capacity(factor: 0.8, minimum: 1, order: .random)
        let whole = try LayerFixture(Self.moe(0.3, policy: policy), width: 9)
        let x = try whole.input(40)
        let dy = try whole.input(40, seed: 8)
        let expected = try LayerPass(whole, x, dy: dy, LayerPass.Setting(step: 1))
        let others = [
            try LayerFixture(Self.moe(0.3, policy: policy), width: 9, chunks: chunks),
            try LayerFixture(Self.moe(0.3, bank: .padded, policy: policy), width: 9),
        ]
        for other in others {
            let pass = try LayerPass(other, x, dy: dy, LayerPass.Setting(step: 1))
            #expect(pass.kept == expected.kept && pass.kept.contains(-1))
            expectClose(pass.output, expected.output.doubles, within: 1e-6, "output")
            for (left, right) in zip(whole.store.parameters, other.store.parameters) {
                expectClose(
                    try #require(try right.gradient()), try #require(try left.gradient()).doubles, within: 1e-6,
                    left.name)
            }
        }
    }
}
