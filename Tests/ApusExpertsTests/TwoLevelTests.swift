import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, D model width, E experts, N nodes.

/// A gate over nodes and one over each node's experts, from their definition.
@Suite struct TwoLevelTests {
    private func softmax(_ x: [Double]) -> [Double] {
        let powers = x.map(exp)
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    private func product(_ matrix: [Double], _ token: [Double]) -> [Double] {
        stride(from: 0, to: matrix.count, by: 9).map { begin in
            (0..<9).reduce(0.0) { $0 + matrix[begin + $1] * token[$1] }
        }
    }

    /// Eight experts on four nodes, or on two.
    @Test(arguments: [(4, 1), (2, 1), (2, 3), (1, 2), (8, 1)])
    func `weights are products of both levels, and each level has its loss`(_ nodes: Int, _ choices: Int) throws {
        let fixture = try LayerFixture(
            MoEConfiguration(
                experts: 8, choices: choices, width: 5, router: RouterConfiguration(nodes: nodes),
                losses: RouterLosses(balance: 1)), width: 9)
        let x = try fixture.input(40)
        let lengths = [15, 25]
        let pass = try LayerPass(
            fixture, x, LayerPass.Setting(layout: try fixture.layout(lengths), globalTokens: 40))
        let (gate, nodeGate) = (try fixture.weights("gate"), try fixture.weights("nodes"))
        let size = 8 / nodes
        let weights = pass.routing.weights.tensor.doubles
        var (first, second) = (0.0, 0.0)
        var begin = 0
        for length in lengths {
            var (nodeChoices, nodeSums) = (Array(repeating: 0.0, count: nodes), Array(repeating: 0.0, count: nodes))
            var (expertChoices, expertSums) = (Array(repeating: 0.0, count: 8), Array(repeating: 0.0, count: 8))
            for token in begin..<begin + length {
                let row = Array(x.doubles[token * 9..<token * 9 + 9])
                let outer = softmax(product(nodeGate, row))
                let logits = product(gate, row)
                let joint = (0..<nodes).flatMap { node in
                    softmax(Array(logits[node * size..<(node + 1) * size])).map { $0 * outer[node] }
                }
                let node = outer.indices.max { outer[$0] < outer[$1] } ?? 0
                let expected = (node * size..<(node + 1) * size).sorted { joint[$0] > joint[$1] }.prefix(choices)
                #expect(Array(pass.chosen[token * choices..<(token + 1) * choices]) == Array(expected))
                for (choice, expert) in expected.enumerated() {
                    #expect(abs(weights[token * choices + choice] - joint[expert]) < 1e-6)
                    expertChoices[expert] += 1
                    nodeChoices[node] += 1
                }
                for expert in 0..<8 { expertSums[expert] += joint[expert] }
                for node in 0..<nodes { nodeSums[node] += outer[node] }
            }
            // N sum of f P over nodes, and E / N sum of f P over each node's experts, of its share of the tokens.
            let all = nodeChoices.reduce(0, +)
            first += Double(nodes) * zip(nodeChoices, nodeSums).reduce(0) { $0 + $1.0 / all * $1.1 } / 40
            for node in 0..<nodes where nodeChoices[node] > 0 {
                for expert in node * size..<(node + 1) * size {
                    second += Double(size) * expertChoices[expert] / nodeChoices[node] * expertSums[expert] / 40
                }
            }
            begin += length
        }
        let value = try #require(pass.value(.balance))
        #expect(abs(value - first - second) < 1e-5 * value, "\(value), not \(first) + \(second)")
    }
}
