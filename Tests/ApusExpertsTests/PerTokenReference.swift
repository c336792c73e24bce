import ApusExperts
import ApusKernels
import Glibc

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// The layer computed one token at a time from its definition, in double precision:
/// `y_t = sum over k of w_tk * expert_{e_tk}(x_t)`, plus what every token goes through.
struct PerTokenReference {
    let fixture: LayerFixture

    private var configuration: MoEConfiguration { fixture.configuration }

    /// (T, D) from (T, D), nothing dropped.
    func output(_ x: [Double]) throws -> [Double] {
        let gate = try fixture.weights("gate")
        let experts = try (0..<configuration.experts).map { expert in
            let names = configuration.activation == .swiglu ? ["gate", "up"] : ["up"]
            return (
                input: try names.flatMap { try fixture.weights("\(expert).\($0)") },
                output: try fixture.weights("\(expert).down")
            )
        }
        let shared =
            configuration.sharedWidth > 0
            ? (input: try fixture.weights("shared.input"), output: try fixture.weights("shared.output")) : nil
        let residual =
            configuration.isResidual
            ? (input: try fixture.weights("residual.input"), output: try fixture.weights("residual.output")) : nil
        var result: [Double] = []
        for begin in stride(from: 0, to: x.count, by: fixture.width) {
            let token = Array(x[begin..<begin + fixture.width])
            var y = Array(repeating: 0.0, count: fixture.width)
            for (expert, weight) in weights(product(gate, token)) {
                add(weight, feedForward(experts[expert], token), to: &y)
            }
            if let shared { add(1, feedForward(shared, token), to: &y) }
            if let residual {
                var logits = product(try fixture.weights("coefficient"), token)
                add(1, try fixture.weights("coefficient.bias"), to: &logits)
                let mixture = softmax(logits)
                let dense = feedForward(residual, token)
                y = y.indices.map { mixture[0] * y[$0] + mixture[1] * dense[$0] }
            }
            result += y
        }
        return result
    }

    /// The chosen experts of a token with their weights.
    func weights(_ logits: [Double]) -> [(expert: Int, weight: Double)] {
        let chosen = Array(logits.indices.sorted { logits[$0] > logits[$1] }.prefix(configuration.choices))
        var scores =
            switch configuration.router.scoring {
            case .softmaxThenTopK: chosen.map { softmax(logits)[$0] }
            case .topKThenSoftmax: softmax(chosen.map { logits[$0] })
            case .sigmoid: chosen.map { 1 / (1 + exp(-logits[$0])) }
            }
        let sum = scores.reduce(0, +)
        if configuration.router.renormalizes { scores = scores.map { $0 / sum } }
        return zip(chosen, scores).map { ($0, Double(configuration.router.weightScale) * $1) }
    }

    private func feedForward(_ weights: (input: [Double], output: [Double]), _ token: [Double]) -> [Double] {
        let h = product(weights.input, token)
        let width = h.count / configuration.activation.inputsPerOutput
        let a = (0..<width).map { index in
            switch configuration.activation {
            case .swiglu: h[index] / (1 + exp(-h[index])) * h[width + index]
            case .gelu: h[index] / 2 * (1 + erf(h[index] / 2.0.squareRoot()))
            case .geluTanh:
                h[index] / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (h[index] + 0.044715 * pow(h[index], 3))))
            case .relu: max(h[index], 0)
            }
        }
        return product(weights.output, a)
    }

    private func product(_ matrix: [Double], _ vector: [Double]) -> [Double] {
        stride(from: 0, to: matrix.count, by: vector.count).map { begin in
            vector.indices.reduce(0) { $0 + matrix[begin + $1] * vector[$1] }
        }
    }

    private func add(_ factor: Double, _ x: [Double], to y: inout [Double]) {
        for index in y.indices { y[index] += factor * x[index] }
    }

    private func softmax(_ x: [Double]) -> [Double] {
        let powers = x.map { exp($0 - (x.max() ?? 0)) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }
}
