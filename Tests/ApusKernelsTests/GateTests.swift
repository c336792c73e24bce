import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, E experts, K choices per token, G routing groups.

@Suite struct `Gates` {
    static let rules = [
        GateRule(isSoftmaxOfChosen: false, renormalizes: false, scale: 1),
        GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 1),
        GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 2.5),
        GateRule(isSoftmaxOfChosen: false, renormalizes: false, scale: 0.5),
        GateRule(isSoftmaxOfChosen: true, renormalizes: false, scale: 1),
        GateRule(isSoftmaxOfChosen: true, renormalizes: true, scale: 3),
    ]
    let backend = CPUBackend(threadCount: 2)

    /// (T, K) distinct experts for each token, some dropped.
    private func choices(_ tokens: Int, _ experts: Int, _ choices: Int, dropping share: Double = 0.2) throws -> Tensor {
        var generator = SeededGenerator(seed: 8)
        let ids = (0..<tokens).flatMap { _ in
            (0..<experts).shuffled(using: &generator).prefix(choices)
                .map { Double.random(in: 0..<1, using: &generator) < share ? -1 : $0 }
        }
        return try backend.allocator.integers(ids, Shape(tokens, choices))
    }

    /// The weights of one token by definition.
    private func weights(_ scores: [Double], _ ids: [Int], _ rule: GateRule) -> [Double] {
        let kept = ids.map { $0 < 0 ? 0 : rule.isSoftmaxOfChosen ? exp(scores[$0]) : scores[$0] }
        let divides = rule.isSoftmaxOfChosen || rule.renormalizes
        let sum = divides ? kept.reduce(0, +) : 1
        return kept.map { sum == 0 ? 0 : Double(rule.scale) * $0 / sum }
    }

    @Test(arguments: rules, [(1, 1, 1), (17, 8, 2), (100, 64, 6), (300, 5, 5)])
    func `form weights and their gradient by rule`(rule: GateRule, size: (tokens: Int, experts: Int, choices: Int))
        throws
    {
        let (tokens, experts, count) = size
        let scores = try backend.allocator.tensor(
            randomValues(tokens * experts, seed: 1, scale: 0.45).map { $0 + 0.5 }, Shape(tokens, experts))
        let ids = try choices(tokens, experts, count)
        let result = try backend.sentinel(tokens, count)
        try backend.gateWeights(scores, ids: ids, rule: rule, into: result)
        let (values, picks) = (scores.doubles, ids.array(of: Int32.self).map(Int.init))
        func row(_ token: Int) -> [Double] { Array(values[token * experts..<(token + 1) * experts]) }
        func picked(_ token: Int) -> [Int] { Array(picks[token * count..<(token + 1) * count]) }
        expectClose(result, (0..<tokens).flatMap { weights(row($0), picked($0), rule) }, "weights")

        let dweights = try backend.random(tokens, count, seed: 2)
        let slopes = dweights.doubles
        let dscores = try backend.random(tokens, experts, seed: 3)
        var expected = dscores.doubles
        for token in 0..<tokens {
            for expert in picked(token) where expert >= 0 {
                expected[token * experts + expert] += derivative(at: values[token * experts + expert]) { score in
                    var scores = row(token)
                    scores[expert] = score
                    let moved = weights(scores, picked(token), rule)
                    return (0..<count).reduce(0) { $0 + moved[$1] * slopes[token * count + $1] }
                }
            }
        }
        try backend.gateWeightsBackward(dweights, scores: scores, ids: ids, weights: result, rule: rule, into: dscores)
        expectClose(dscores, expected, "gradient of weights")
    }

    @Test(arguments: rules)
    func `without ids choose every expert in order`(rule: GateRule) throws {
        let scores = try backend.allocator.tensor(randomValues(60, seed: 1, scale: 0.4).map { $0 + 0.5 }, Shape(12, 5))
        let all = try backend.allocator.integers((0..<60).map { $0 % 5 }, Shape(12, 5))
        let (implied, named) = (try backend.sentinel(12, 5), try backend.sentinel(12, 5))
        try backend.gateWeights(scores, ids: nil, rule: rule, into: implied)
        try backend.gateWeights(scores, ids: all, rule: rule, into: named)
        expectSameBits(implied, named, "weights")
        let slopes = try backend.random(12, 5, seed: 2)
        let (first, second) = (try backend.zeros(Shape(12, 5), .f32), try backend.zeros(Shape(12, 5), .f32))
        try backend.gateWeightsBackward(slopes, scores: scores, ids: nil, weights: implied, rule: rule, into: first)
        try backend.gateWeightsBackward(slopes, scores: scores, ids: all, weights: named, rule: rule, into: second)
        expectSameBits(first, second, "gradients")
    }

    @Test func `weigh a token without choices by nothing`() throws {
        let scores = try backend.random(2, 4, seed: 1)
        let ids = try backend.allocator.integers([-1, -1, -1, -1], Shape(2, 2))
        for rule in Self.rules {
            let weights = try backend.sentinel(2, 2)
            try backend.gateWeights(scores, ids: ids, rule: rule, into: weights)
            #expect(weights.floats() == [0, 0, 0, 0])
            let dscores = try backend.zeros(Shape(2, 4), .f32)
            try backend.gateWeightsBackward(
                try backend.random(2, 2, seed: 2), scores: scores, ids: ids, weights: weights, rule: rule, into: dscores
            )
            #expect(dscores.floats().allSatisfy { $0 == 0 })
        }
    }

    @Test(arguments: [[0..<40], [0..<10, 10..<25, 25..<40], [0..<0, 0..<40]], [false, true])
    func `sum over the tokens of each group that count`(groups: [Range<Int>], isMasked: Bool) throws {
        let (tokens, experts, count) = (40, 6, 2)
        var generator = SeededGenerator(seed: 5)
        let flags = (0..<tokens).map { _ in UInt8(Bool.random(using: &generator) ? 1 : 0) }
        let mask = isMasked ? try backend.allocator.tensor(flags, Shape(tokens)) : nil
        func counts(_ token: Int) -> Bool { !isMasked || flags[token] != 0 }
        let values = try backend.random(tokens, experts, seed: 1)
        let ids = try choices(tokens, experts, count)
        var sums = Array(repeating: 0.0, count: groups.count * experts)
        var frequencies = sums
        let picks = ids.array(of: Int32.self).map(Int.init)
        let rows = values.doubles
        for (group, range) in groups.enumerated() {
            for token in range {
                for slot in token * count..<(token + 1) * count where picks[slot] >= 0 {
                    if counts(token) { frequencies[group * experts + picks[slot]] += 1 }
                }
                guard counts(token) else { continue }
                for expert in 0..<experts { sums[group * experts + expert] += rows[token * experts + expert] }
            }
        }
        let result = try backend.sentinel(groups.count, experts)
        try backend.sumOverGroups(values, groups: groups, mask: mask, into: result)
        expectClose(result, sums, "sums")
        try backend.countChoices(ids, groups: groups, mask: mask, into: result)
        #expect(result.doubles == frequencies)

        let slopes = try backend.random(groups.count, experts, seed: 6)
        let dvalues = try backend.random(tokens, experts, seed: 7)
        let gradient = slopes.doubles
        var expectedValues = dvalues.doubles
        for (group, range) in groups.enumerated() {
            for token in range {
                for expert in 0..<experts where counts(token) {
                    expectedValues[token * experts + expert] += gradient[group * experts + expert]
                }
            }
        }
        try backend.sumOverGroupsBackward(slopes, groups: groups, mask: mask, into: dvalues)
        expectClose(dvalues, expectedValues, "gradient of sums")
    }
}
