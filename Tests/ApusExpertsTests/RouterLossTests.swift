import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, E experts, K choices per token.

/// The values of the losses against their definitions; their gradients are tested with the layer.
@Suite struct RouterLossTests {
    @Test(arguments: RouterConfiguration.Scoring.allCases, [false, true])
    func `values are those of the definitions`(_ scoring: RouterConfiguration.Scoring, _ isMasked: Bool) throws {
        let configuration = MoEConfiguration(
            experts: 5, choices: 2, width: 3, router: RouterConfiguration(scoring: scoring),
            losses: RouterLosses(balance: 7, z: 7, importance: 7))
        let fixture = try LayerFixture(configuration, width: 9)
        let lengths = [4, 9, 1, 6]
        let mask = isMasked ? (0..<20).map { UInt8($0 % 3 == 1 || $0 == 13 ? 0 : 1) } : nil
        let x = try fixture.input(20)
        let setting = LayerPass.Setting(layout: try fixture.layout(lengths, mask: mask), globalTokens: 33)
        let pass = try LayerPass(fixture, x, setting)

        let gate = try fixture.weights("gate")
        let (rows, weights) = (x.doubles, pass.routing.weights.tensor.doubles)
        var (balance, z, importance) = (0.0, 0.0, 0.0)
        var begin = 0
        for length in lengths {
            let tokens = (begin..<begin + length).filter { mask?[$0] != 0 }
            begin += length
            guard !tokens.isEmpty else { continue }
            var (f, p) = (Array(repeating: 0.0, count: 5), Array(repeating: 0.0, count: 5))
            var load = f
            for token in tokens {
                let logits = (0..<5).map { e in (0..<9).reduce(0.0) { $0 + gate[e * 9 + $1] * rows[token * 9 + $1] } }
                let powers = logits.map { scoring == .sigmoid ? 1 / (1 + exp(-$0)) : exp($0) }
                let count = Double(tokens.count)
                for expert in 0..<5 { p[expert] += powers[expert] / powers.reduce(0, +) / count }
                for slot in 2 * token..<2 * token + 2 {
                    f[pass.chosen[slot]] += 1 / (2 * count)
                    load[pass.chosen[slot]] += weights[slot]
                }
                z += pow(log(logits.reduce(0) { $0 + exp($1) }), 2) / 33
            }
            let share = Double(tokens.count) / 33
            balance += share * 5 * zip(f, p).reduce(0) { $0 + $1.0 * $1.1 }
            let mean = load.reduce(0, +) / 5
            importance += share * load.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 5 / (mean * mean)
        }
        for (kind, expected) in [(RouterLossKind.balance, balance), (.z, z), (.importance, importance)] {
            let value = try #require(pass.value(kind))
            #expect(abs(value - expected) < 1e-5 * expected, "\(kind): \(value), expected \(expected)")
        }
    }

    @Test func `a balanced router has a balance loss of 1, a collapsed one of E`() throws {
        let fixture = try LayerFixture(MoEConfiguration(experts: 4, choices: 1, width: 3), width: 4)
        try fixture.assign("gate", (0..<16).map { $0 / 4 == $0 % 4 ? 1 : 0 })
        let even = (0..<32).map { Float($0 / 4 % 4 == $0 % 4 ? 1 : 0) }
        let x = try fixture.backend.allocator.tensor(even, Shape(8, 4))
        #expect(abs(try #require(LayerPass(fixture, x).value(.balance)) - 1) < 1e-6)
        x.assign((0..<32).map { Float($0 % 4 == 0 ? 40 : 0) })
        #expect(abs(try #require(LayerPass(fixture, x).value(.balance)) - 4) < 1e-5)
    }

    @Test func `batches in which no token counts cost nothing`() throws {
        let fixture = try LayerFixture(
            MoEConfiguration(experts: 4, choices: 2, width: 3, losses: RouterLosses(balance: 1, z: 1, importance: 1)),
            width: 5)
        let zeros = Array(repeating: UInt8(0), count: 6)
        let setting = LayerPass.Setting(layout: try fixture.layout([6], mask: zeros), globalTokens: 10)
        let dy = try fixture.input(6, seed: 8)
        fixture.backend.fill(dy, with: 0)
        let pass = try LayerPass(fixture, fixture.input(6), dy: dy, setting)
        for kind in RouterLossKind.allCases { #expect(pass.value(kind) == 0) }
        #expect(try #require(pass.inputGradient).floats().allSatisfy { $0 == 0 })
        #expect(try fixture.gradient("gate").allSatisfy { $0 == 0 })
    }
}
