import ApusKernels
import ApusTensor
import Testing

@testable import ApusCUDA

// Shape letters: T tokens, E experts, K choices per token.

extension CUDATests {
    /// Routing is bounded by launches: how many there are is part of what it promises.
    @Suite struct `A router's launches` {
        init() {
            FakeDriver.reset()
            FakeCompiler.reset()
        }

        private let rule = GateRule(isSoftmaxOfChosen: false, renormalizes: true, scale: 1)

        /// The kernels that `body` launches.
        private func kernels(_ body: () throws -> Void) throws -> [String] {
            _ = FakeDriver.takeCalls()
            try body()
            return FakeDriver.takeCalls("launch").map { String($0.split(separator: " ")[1]) }
        }

        @Test(arguments: [
            (1, 64, 8, ["choose_experts_64"]), (64, 64, 8, ["choose_experts_64"]),
            (65, 60, 8, ["choose_experts_64", "expert_place"]),
            (32_768, 128, 8, ["choose_experts_128", "expert_place"]),
            (4, 257, 2, ["choose_experts_1024"]),
        ])
        func `scores to sorted rows`(tokens: Int, experts: Int, choices: Int, expected: [String]) throws {
            let backend = try FakeDriver.backend()
            let logits = try backend.empty(Shape(tokens, experts), .f32)
            let found = try kernels {
                _ = try backend.chooseExperts(logits, choices: choices, isSigmoid: false, bias: nil, rule: rule)
            }
            #expect(found == expected)
        }

        @Test func `more choices than a warp has lanes take an op each`() throws {
            let backend = try FakeDriver.backend()
            let logits = try backend.empty(Shape(4, 64), .f32)
            let found = try kernels {
                _ = try backend.chooseExperts(logits, choices: 33, isSigmoid: true, bias: nil, rule: rule)
            }
            #expect(found == ["sigmoid", "top_k_64", "expert_histogram", "gate_weights"])
        }

        @Test(arguments: [(2048, 1), (2049, 2), (262_144, 2), (0, 1)])
        func `a sort`(slots: Int, launches: Int) throws {
            let backend = try FakeDriver.backend()
            let ids = try backend.empty(Shape(slots, 1), .i32)
            #expect(try kernels { _ = try backend.sortByExpert(ids, experts: 64) }.count == launches)
        }

        @Test(arguments: [(2048, ["sum_over_groups"]), (2049, ["sum_over_groups", "sum_chunks"])])
        func `sums and counts`(length: Int, expected: [String]) throws {
            let backend = try FakeDriver.backend()
            let (groups, experts) = ([0..<length, length..<length + 5], 64)
            let (values, ids) = (
                try backend.empty(Shape(length + 5, experts), .f32), try backend.empty(Shape(length + 5, 2), .i32)
            )
            let (sums, counts) = (
                try backend.empty(Shape(2, experts), .f32), try backend.empty(Shape(2, experts), .f32)
            )
            let found = try kernels {
                try backend.sumAndCount(values, ids: ids, groups: groups, mask: nil, sums: sums, counts: counts)
            }
            #expect(found == expected)
        }

        @Test func `the way back`() throws {
            let backend = try FakeDriver.backend()
            let scores = try backend.empty(Shape(100, 64), .f32)
            let (ids, weights) = (try backend.empty(Shape(100, 8), .i32), try backend.empty(Shape(100, 8), .f32))
            let found = try kernels {
                try backend.softmaxGateBackward(
                    GateGradients(weights: weights, sums: nil), logits: scores, scores: scores, ids: ids,
                    weights: weights, rule: rule, groups: [0..<100], mask: nil, into: scores, adds: false)
            }
            #expect(found == ["softmax_gate_backward"])
        }
    }
}
