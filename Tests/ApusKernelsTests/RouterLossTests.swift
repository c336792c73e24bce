import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

@Suite struct `Router losses` {
    let backend = CPUBackend(threadCount: 2)
    static let coefficient: Float = 0.3
    static let scale: Float = 1.0 / 12

    private func scalar() throws -> Tensor { try backend.sentinel(1) }

    /// Expects `gradient` to be the derivative of the coefficient times `value` in double precision.
    private func expectDerivative(
        _ gradient: Tensor, at point: [Double], _ name: String, _ value: ([Double]) -> Double
    ) {
        let expected = point.indices.map { index in
            Double(Self.coefficient)
                * derivative(at: point[index]) { x in
                    var moved = point
                    moved[index] = x
                    return value(moved)
                }
        }
        expectClose(gradient, expected, "gradient of \(name)")
    }

    @Test func `for balance weigh probabilities by the shares of the choices`() throws {
        let (groups, experts) = (3, 5)
        let sums = try backend.allocator.tensor(randomValues(15, seed: 1).map { $0 + 2 }, Shape(groups, experts))
        let chosen: [Float] = [4, 0, 3, 1, 2, 0, 0, 0, 0, 0, 1, 1, 1, 7, 0]
        let counts = try backend.allocator.tensor(chosen, Shape(groups, experts))
        let (value, gradient) = (try scalar(), try backend.sentinel(groups, experts))
        try backend.balanceLoss(
            sums, counts: counts, scale: Self.scale, into: value, coefficient: Self.coefficient, gradient: gradient)
        func loss(_ sums: [Double]) -> Double {
            (0..<groups).reduce(0) { total, group in
                let range = group * experts..<(group + 1) * experts
                let choices = range.reduce(0) { $0 + Double(chosen[$1]) }
                if choices == 0 { return total }
                return total + range.reduce(0) { $0 + Double(Self.scale) * Double(chosen[$1]) / choices * sums[$1] }
            }
        }
        expectClose(value, [loss(sums.doubles)], "balance loss")
        expectDerivative(gradient, at: sums.doubles, "balance loss", loss)
        let again = try scalar()
        try backend.balanceLoss(sums, counts: counts, scale: Self.scale, into: again, coefficient: 0, gradient: nil)
        expectSameBits(again, value, "balance loss without gradient")
    }

    @Test(arguments: [false, true], [(1, 3), (12, 7), (200, 100)])
    func `for logits square the log-sum-exp of tokens that count`(
        isMasked: Bool, size: (tokens: Int, experts: Int)
    ) throws {
        let (tokens, experts) = size
        let logits = try backend.random(tokens, experts, seed: 1, scale: 3)
        let flags = (0..<tokens).map { UInt8($0 % 3 == 1 ? 0 : 1) }
        let mask = isMasked ? try backend.allocator.tensor(flags, Shape(tokens)) : nil
        let (value, gradient) = (try scalar(), try backend.sentinel(tokens, experts))
        try backend.logitLoss(
            logits, mask: mask, scale: Self.scale, into: value, coefficient: Self.coefficient, gradient: gradient)
        let values = logits.doubles
        var (expected, slopes) = (0.0, Array(repeating: 0.0, count: values.count))
        for token in 0..<tokens where !isMasked || flags[token] != 0 {
            let row = token * experts..<(token + 1) * experts
            let sum = log(row.reduce(0) { $0 + exp(values[$1]) })
            expected += Double(Self.scale) * sum * sum
            for index in row {
                slopes[index] = Double(Self.coefficient * Self.scale) * 2 * sum * exp(values[index] - sum)
            }
        }
        expectClose(value, [expected], "logit loss")
        expectClose(gradient, slopes, "gradient of the logit loss")
    }

    @Test(arguments: [false, true])
    func `for importance square the variation of the loads`(isMasked: Bool) throws {
        let (tokens, experts, choices) = (20, 4, 2)
        let groups = [0..<6, 6..<6, 6..<20]
        var generator = SeededGenerator(seed: 3)
        let ids = (0..<tokens).flatMap { token -> [Int] in
            let picks = (0..<experts).shuffled(using: &generator).prefix(choices)
            return token % 5 == 4 ? [picks[0], -1] : Array(picks)
        }
        let flags = (0..<tokens).map { UInt8($0 % 3 == 1 ? 0 : 1) }
        let mask = isMasked ? try backend.allocator.tensor(flags, Shape(tokens)) : nil
        let weights = try backend.allocator.tensor(
            randomValues(tokens * choices, seed: 1, scale: 0.4).map { $0 + 0.5 }, Shape(tokens, choices))
        let (value, gradient) = (try scalar(), try backend.sentinel(tokens, choices))
        try backend.importanceLoss(
            weights, ids: try backend.allocator.integers(ids, Shape(tokens, choices)), experts: experts, groups: groups,
            mask: mask, scale: Self.scale, into: value, coefficient: Self.coefficient, gradient: gradient)
        func loss(_ weights: [Double]) -> Double {
            groups.reduce(0) { total, group in
                let counted = group.filter { !isMasked || flags[$0] != 0 }
                if counted.isEmpty { return total }
                var loads = Array(repeating: 0.0, count: experts)
                for token in counted {
                    for slot in token * choices..<(token + 1) * choices where ids[slot] >= 0 {
                        loads[ids[slot]] += weights[slot]
                    }
                }
                let mean = loads.reduce(0, +) / Double(experts)
                let variance = loads.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(experts)
                return total + Double(Self.scale) * Double(counted.count) * variance / (mean * mean)
            }
        }
        expectClose(value, [loss(weights.doubles)], "importance loss")
        expectDerivative(gradient, at: weights.doubles, "importance loss", loss)
    }
}
