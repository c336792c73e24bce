import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, D model width, E experts, P width of the cosine router's space.

/// Logits that are cosines over a learned temperature.
@Suite struct CosineRouterTests {
    private func fixture(_ cosine: CosineConfiguration = CosineConfiguration(width: 4)) throws -> LayerFixture {
        try LayerFixture(
            MoEConfiguration(
                experts: 6, choices: 6, width: 5, router: RouterConfiguration(cosine: cosine)), width: 9)
    }

    /// Weights by expert of each token, from the definition in double precision.
    private func expected(_ fixture: LayerFixture, _ x: [Double], temperature: Double) throws -> [[Double]] {
        let (projection, gate) = (try fixture.weights("projection"), try fixture.weights("gate"))
        func normalised(_ v: [Double]) -> [Double] {
            let length = v.reduce(0) { $0 + $1 * $1 }.squareRoot()
            return v.map { $0 / length }
        }
        return stride(from: 0, to: x.count, by: 9).map { begin in
            let p = normalised(
                (0..<4).map { row in (0..<9).reduce(0.0) { $0 + projection[row * 9 + $1] * x[begin + $1] } })
            let powers = (0..<6).map { expert in
                let w = normalised(Array(gate[expert * 4..<expert * 4 + 4]))
                return exp((0..<4).reduce(0.0) { $0 + p[$1] * w[$1] } / temperature)
            }
            let sum = powers.reduce(0, +)
            return powers.map { $0 / sum }
        }
    }

    private func weights(_ pass: LayerPass) -> [[Double]] {
        let values = pass.routing.weights.tensor.doubles
        return stride(from: 0, to: values.count, by: 6).map { begin in
            var row = Array(repeating: 0.0, count: 6)
            for choice in begin..<begin + 6 { row[pass.chosen[choice]] = values[choice] }
            return row
        }
    }

    @Test(arguments: [Float(0.5), 0.07, 3])
    func `weights follow from angles and the temperature`(_ temperature: Float) throws {
        let fixture = try fixture(CosineConfiguration(width: 4, temperature: temperature))
        let x = try fixture.input(40)
        let found = weights(try LayerPass(fixture, x))
        let wanted = try expected(fixture, x.doubles, temperature: Double(temperature))
        expectClose(found.flatMap { $0 }.map(Float.init), wanted.flatMap { $0 }, within: 1e-5, "weights")
    }

    @Test func `lengths of tokens and of experts' vectors do not matter`() throws {
        let fixture = try fixture()
        let x = try fixture.input(40)
        let before = weights(try LayerPass(fixture, x)).flatMap { $0 }
        x.assign(x.floats().map { 3 * $0 })
        try fixture.assign("gate", try fixture.weights("gate").map { Float(5 * $0) })
        expectClose(weights(try LayerPass(fixture, x)).flatMap { $0 }.map(Float.init), before, within: 1e-5, "weights")
    }

    @Test func `the temperature stays above its floor`() throws {
        let fixture = try fixture(CosineConfiguration(width: 4, temperature: 0.5, floor: 0.2))
        let x = try fixture.input(40)
        try fixture.assign("temperature", [30])
        let wanted = try expected(fixture, x.doubles, temperature: 0.2)
        let found = weights(try LayerPass(fixture, x))
        expectClose(found.flatMap { $0 }.map(Float.init), wanted.flatMap { $0 }, within: 1e-5, "weights")
    }

    @Test func `a token of zeros has even weights and finite gradients`() throws {
        let fixture = try fixture()
        let x = try fixture.input(3)
        x.assign(Array(repeating: 0, count: 9) + Array(x.floats()[9...]))
        let pass = try LayerPass(fixture, x, dy: try fixture.input(3, seed: 8))
        #expect(weights(pass)[0].allSatisfy { abs($0 - 1.0 / 6) < 1e-6 })
        for parameter in fixture.store.parameters {
            #expect(try #require(try parameter.gradient()).floats().allSatisfy(\.isFinite), "\(parameter.name)")
        }
    }
}
