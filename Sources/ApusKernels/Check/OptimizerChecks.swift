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
        make("adamw of several buffers") { probe in
            // Each element type beside the `f32` of routers, and more buffers than one launch takes.
            var runs: [AdamWRun] = []
            var expected: [[Double]] = []
            for index in 0..<27 {
                let size = [1, 2049, 65, 300][index % 4]
                let type = index % 3 == 0 ? .f32 : probe.dtype
                let (weights, gradient) = (try probe.draw(size, dtype: type), try probe.draw(size, dtype: type))
                let (first, second) = (
                    try probe.draw(size, spread: 0.1, dtype: type),
                    try probe.draw(size, mean: 0.04, spread: 0.01, dtype: type)
                )
                var step = constants
                step.weightDecay = Float(index) / 10
                runs.append(
                    AdamWRun(
                        AdamWBuffers(
                            weights: weights.tensor, master: nil, first: first.tensor, second: second.tensor,
                            gradient: gradient.tensor), step,
                        rounding: RandomStream(seed: 1, purpose: .stochasticRounding, layer: index), firstElement: 3))
                let (w, m, v) = adamW(
                    weights.values, first.values, second.values, gradient.values.map { 0.5 * $0 },
                    decay: Double(step.weightDecay))
                expected += [w, m, v]
            }
            let scale = try probe.put([0.5], Shape(1), .f32)
            try probe.backend.adamW(runs, gradientScale: scale.tensor)
            for (index, run) in runs.enumerated() {
                probe.expect(run.buffers.weights, expected[3 * index])
                probe.expect(run.buffers.first, expected[3 * index + 1])
                probe.expect(run.buffers.second, expected[3 * index + 2])
            }
        },
        make("adamw held back") { probe in
            let isHalf = probe.dtype == .bf16
            let master = try probe.draw(count, dtype: .f32)
            let weights = try probe.put(master.values, Shape(count), probe.dtype)
            let (first, second) = (try probe.draw(count, dtype: .f32), try probe.draw(count, dtype: .f32))
            let gradient = try probe.draw(count, dtype: .f32)
            for factor in [Double.nan, .infinity] {
                let scale = try probe.put([factor], Shape(1), .f32)
                try probe.backend.adamW(
                    AdamWBuffers(
                        weights: weights.tensor, master: isHalf ? master.tensor : nil, first: first.tensor,
                        second: second.tensor, gradient: gradient.tensor), constants, gradientScale: scale.tensor,
                    rounding: RandomStream(seed: 1, purpose: .stochasticRounding), firstElement: 0)
            }
            for operand in [weights, master, first, second, gradient] { probe.expect(operand.tensor, operand.values) }
        },
        make("gradient squares") { probe in
            // The second takes more buffers than one launch, and more than one block for some.
            for sizes in [[9], [1, 70_000, 3, 5000, 2, 65_536] + Array(9..<30)] {
                let gradients = try sizes.enumerated().map { index, size in
                    try probe.draw(size, dtype: index % 2 == 0 ? .f32 : probe.dtype)
                }
                let sum = try probe.put([7], Shape(1), .f32).tensor
                try probe.backend.gradientSquares(gradients.map(\.tensor), into: sum)
                probe.expect(sum, [gradients.reduce(0) { $0 + dot($1.values, $1.values) }])
            }
        },
        make("clip factor", [.f32]) { probe in
            let scale = try probe.empty(1)
            let one = try probe.put([1], Shape(1), .f32).tensor
            for (sum, limit, factor) in [(16.0, Float(2), 0.5), (1.0, 2, 1.0), (16.0, 0, 1.0)] {
                let squares = try probe.put([sum], Shape(1), .f32).tensor
                for other in [nil, one] {
                    try probe.backend.clipFactor(
                        sumOfSquares: squares, loss: other, previous: other, limit: limit, into: scale)
                    probe.expect(scale, [factor])
                }
            }
            for bad in [Double.nan, .infinity, -.infinity] {
                let bad = try probe.put([bad], Shape(1), .f32).tensor
                for (sum, loss, previous) in [(bad, one, one), (one, bad, one), (one, one, bad), (bad, nil, nil)] {
                    for limit in [Float(0), 2] {
                        try probe.backend.clipFactor(
                            sumOfSquares: sum, loss: loss, previous: previous, limit: limit, into: scale)
                        let found = probe.floats(scale)[0]
                        probe.expect(found.isNaN)
                    }
                }
            }
        },
        make("selection bias", [.f32]) { probe in
            for (e, groups) in [(1, [1]), (6, [3]), (67, [2, 1, 4]), (1024, [1])] {
                let bias = try probe.draw(e)
                let parts = groups.map { g in (0..<g * e).map { _ in Double(probe.integer(below: 9)) } }
                let choices = try zip(parts, groups).map { try probe.put($0, Shape($1, e), .f32).tensor }
                let scale = try probe.put([0.5], Shape(1), .f32).tensor
                try probe.backend.moveSelectionBias(bias.tensor, choices: choices, rate: 0.25, gradientScale: scale)
                let loads = (0..<e).map { expert in
                    parts.reduce(0) { sum, part in
                        stride(from: expert, to: part.count, by: e).reduce(sum) { $0 + part[$1] }
                    }
                }
                let mean = Double(Float(loads.reduce(0, +)) / Float(e))
                let moved = zip(bias.values, loads).map { $0 + ($1 < mean ? 0.25 : $1 > mean ? -0.25 : 0) }
                probe.expect(bias.tensor, moved)
                let none = try probe.put([.nan], Shape(1), .f32).tensor
                try probe.backend.moveSelectionBias(bias.tensor, choices: choices, rate: 0.25, gradientScale: none)
                probe.expect(bias.tensor, moved)
            }
        },
    ]

    private static func adamW(
        _ weights: [Double], _ first: [Double], _ second: [Double], _ gradient: [Double],
        decay: Double = Double(constants.weightDecay)
    ) -> (weights: [Double], first: [Double], second: [Double]) {
        let (b1, b2) = (Double(constants.beta1), Double(constants.beta2))
        let rate = Double(constants.learningRate)
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
