import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusExperts

// Shape letters: T tokens, D model width, E experts, K choices per token, G groups of experts.

/// Choices among the experts of a few groups.
@Suite struct GroupLimitTests {
    let backend = CPUBackend(threadCount: 2)

    /// Two experts in each of three groups.
    static let scores: [Float] = [0.5, 0.1, 0.4, 0.35, 0.45, 0.0]

    @Test(arguments: [
        (GroupLimit.Score.best, 1, [0]), (.best, 2, [0, 2]), (.best, 3, [0, 1, 2]), (.bestTwo, 1, [1]),
        (.bestTwo, 2, [0, 1]),
    ])
    func `groups by hand`(_ score: GroupLimit.Score, _ chosen: Int, _ groups: [Int]) throws {
        let scores = try backend.allocator.tensor(Self.scores, Shape(1, 6))
        let limited = try GroupLimit(groups: 3, chosen: chosen, score: score).applied(to: scores, bias: nil, backend)
            .floats()
        for (expert, value) in limited.enumerated() {
            #expect(groups.contains(expert / 2) ? value == Self.scores[expert] : value < -1e29, "expert \(expert)")
        }
    }

    @Test func `a bias moves groups too`() throws {
        let scores = try backend.allocator.tensor(Self.scores, Shape(1, 6))
        let bias = try backend.allocator.tensor([0, 0, 0, 0, 0.25, 0.25] as [Float], Shape(6))
        let limited = try GroupLimit(groups: 3, chosen: 1, score: .bestTwo).applied(to: scores, bias: bias, backend)
        // 0.6, 0.75 and 0.95 now.
        #expect(limited.floats()[4...] == [0.45 + 0.25, 0.25] && limited.floats()[..<4].allSatisfy { $0 < -1e29 })
    }

    @Test func `equal groups go by their number`() throws {
        let scores = try backend.allocator.tensor([1, 0, 1, 0, 1, 0] as [Float], Shape(1, 6))
        let limited = try GroupLimit(groups: 3, chosen: 2).applied(to: scores, bias: nil, backend).floats()
        #expect(limited.map { $0 > -1e29 } == [true, true, true, true, false, false])
    }

    @Test(
        arguments: RouterConfiguration.Scoring.allCases,
        [(12, 3, GroupLimit(groups: 4, chosen: 2)), (8, 4, GroupLimit(groups: 2, chosen: 1))])
    func `a layer chooses as the definition says`(
        _ scoring: RouterConfiguration.Scoring, _ sizes: (experts: Int, choices: Int, limit: GroupLimit)
    ) throws {
        for score in GroupLimit.Score.allCases {
            try check(
                scoring, GroupLimit(groups: sizes.limit.groups, chosen: sizes.limit.chosen, score: score),
                experts: sizes.experts, choices: sizes.choices)
        }
    }

    private func check(
        _ scoring: RouterConfiguration.Scoring, _ limit: GroupLimit, experts: Int, choices: Int
    ) throws {
        let fixture = try LayerFixture(
            MoEConfiguration(
                experts: experts, choices: choices, width: 5,
                router: RouterConfiguration(
                    scoring: scoring, renormalizes: true, biasRate: scoring == .sigmoid ? 0.1 : 0, groupLimit: limit)),
            width: 9, backend: backend)
        let bias = (0..<experts).map { scoring == .sigmoid ? 0.03 * Float($0 % 5) : 0 }
        if scoring == .sigmoid { try fixture.assign("bias", bias) }
        let x = try fixture.input(200)
        let pass = try LayerPass(fixture, x, LayerPass.Setting(step: nil))
        let gate = try fixture.weights("gate")
        let tokens = x.doubles
        let size = experts / limit.groups
        let counted = [GroupLimit.Score.best: 1, .bestTwo: 2, .sum: size][limit.score] ?? 0
        var isLimited = false
        for token in 0..<200 {
            let logits = (0..<experts).map { expert in
                (0..<9).reduce(0.0) { $0 + gate[expert * 9 + $1] * tokens[token * 9 + $1] }
            }
            let scores = Self.scores(scoring, logits).enumerated().map { $1 + Double(bias[$0]) }
            let worth = (0..<limit.groups).map { group in
                scores[group * size..<(group + 1) * size].sorted(by: >).prefix(counted).reduce(
                    0, +)
            }
            let groups = worth.indices.sorted { worth[$0] > worth[$1] }.prefix(limit.chosen)
            let ranked = scores.indices.sorted { scores[$0] > scores[$1] }
            let expected = ranked.filter { groups.contains($0 / size) }.prefix(choices)
            isLimited = isLimited || Array(ranked.prefix(choices)) != Array(expected)
            let found = pass.chosen[token * choices..<(token + 1) * choices]
            #expect(Array(found) == Array(expected), "token \(token)")
        }
        #expect(isLimited)
    }

    private static func scores(_ scoring: RouterConfiguration.Scoring, _ logits: [Double]) -> [Double] {
        if scoring == .sigmoid { return logits.map { 1 / (1 + exponential(-$0)) } }
        let powers = logits.map(exponential)
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    /// The series, for arguments of a few units.
    private static func exponential(_ x: Double) -> Double {
        var (term, sum) = (1.0, 1.0)
        for index in 1..<60 {
            term *= x / Double(index)
            sum += term
        }
        return sum
    }

    @Test func `one group of all, or all groups, is no limit`() throws {
        let x = try backend.allocator.random(Shape(50, 9), .f32, seed: 7)
        func pass(_ limit: GroupLimit?) throws -> LayerPass {
            let fixture = try LayerFixture(
                MoEConfiguration(
                    experts: 6, choices: 2, width: 5, router: RouterConfiguration(groupLimit: limit)), width: 9,
                backend: backend)
            return try LayerPass(fixture, x)
        }
        let free = try pass(nil)
        for limit in [GroupLimit(groups: 1, chosen: 1), GroupLimit(groups: 3, chosen: 3)] {
            let limited = try pass(limit)
            #expect(limited.chosen == free.chosen)
            expectSameBits(limited.output, free.output, "output")
        }
    }

    @Test(arguments: [
        (GroupLimit(groups: 5, chosen: 1), 2, "do not divide 12 experts", "works is 4"),
        (GroupLimit(groups: 4, chosen: 5), 2, "5 of 4 groups", "from 1 to 4"),
        (GroupLimit(groups: 4, chosen: 1), 4, "too few for 4 choices", "at least 2 groups"),
        (GroupLimit(groups: 12, chosen: 3, score: .bestTwo), 2, "no two best ones", "fewer groups"),
    ])
    func `impossible limits are named`(_ limit: GroupLimit, _ choices: Int, _ reason: String, _ remedy: String) throws {
        let flaw = try #require(limit.flaw(experts: 12, choices: choices))
        #expect(flaw.reason.contains(reason) && flaw.remedy.contains(remedy), "\(flaw)")
    }
}
