import ApusTensor
import Glibc

extension OpCheck {
    private static let count = 777
    private static let constants = AdamWStep(
        learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, step: 3)

    static let optimizer: [[OpCheck]] = [
        make("adamw") { probe in
            let isHalf = probe.dtype == .bf16
            let master = try probe.draw(count, dtype: .f32)
            let weights = try probe.put(master.values, Shape(count), probe.dtype)
            let (first, second) = (
                try probe.draw(count, spread: 0.1, dtype: .f32),
                try probe.draw(count, mean: 0.04, spread: 0.01, dtype: .f32)
            )
            let (gradient, scale) = (try probe.draw(count, dtype: .f32), try probe.put([0.5], Shape(1), .f32))
            try probe.backend.adamW(
                AdamWBuffers(
                    weights: weights.tensor, master: isHalf ? master.tensor : nil, first: first.tensor,
                    second: second.tensor, gradient: gradient.tensor), constants, gradientScale: scale.tensor,
                rounding: RandomStream(seed: 1, purpose: .stochasticRounding), firstElement: 0)
            let expected = adamW(
                isHalf ? master.values : weights.values, first.values, second.values, gradient.values.map { 0.5 * $0 })
            probe.expect(weights.tensor, expected.weights)
            if isHalf { probe.expect(master.tensor, expected.weights) }
            probe.expect(first.tensor, expected.first)
            probe.expect(second.tensor, expected.second)
            probe.expect(gradient.tensor, gradient.values.map { _ in 0 })
        },
        make("adamw, all bf16", [.bf16]) { probe in
            let (weights, first) = (try probe.draw(count), try probe.draw(count, spread: 0.1))
            let (second, gradient) = (try probe.draw(count, mean: 0.04, spread: 0.01), try probe.draw(count))
            let scale = try probe.put([0.5], Shape(1), .f32)
            try probe.backend.adamW(
                AdamWBuffers(
                    weights: weights.tensor, master: nil, first: first.tensor, second: second.tensor,
                    gradient: gradient.tensor), constants, gradientScale: scale.tensor,
                rounding: RandomStream(seed: 1, purpose: .stochasticRounding), firstElement: 0)
            let expected = adamW(weights.values, first.values, second.values, gradient.values.map { 0.5 * $0 })
            probe.expect(weights.tensor, expected.weights)
            probe.expect(first.tensor, expected.first)
            probe.expect(second.tensor, expected.second)
        },
        make("clip factor", [.f32]) { probe in
            let scale = try probe.empty(1)
            for (sum, factor) in [(16.0, 0.5), (1.0, 1.0)] {
                try probe.backend.clipFactor(
                    sumOfSquares: probe.put([sum], Shape(1), .f32).tensor, limit: 2, into: scale)
                probe.expect(scale, [factor])
            }
        },
    ]

    private static func adamW(
        _ weights: [Double], _ first: [Double], _ second: [Double], _ gradient: [Double]
    ) -> (weights: [Double], first: [Double], second: [Double]) {
        let (b1, b2) = (Double(constants.beta1), Double(constants.beta2))
        let (rate, decay) = (Double(constants.learningRate), Double(constants.weightDecay))
        let m = zip(first, gradient).map { b1 * $0 + (1 - b1) * $1 }
        let v = zip(second, gradient).map { b2 * $0 + (1 - b2) * $1 * $1 }
        let (c1, c2) = (1 - pow(b1, 3), 1 - pow(b2, 3))
        let updated = weights.indices.map { i in
            weights[i] - rate * decay * weights[i]
                - rate * (m[i] / c1) / ((v[i] / c2).squareRoot() + Double(constants.epsilon))
        }
        return (updated, m, v)
    }
}
