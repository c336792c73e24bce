import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: F expert width, E experts, N ranks of the expert group, P of the tensor group.

/// A model whose layers have fewer experts than their expert group has ranks.
@Suite struct SlicedModelTests {
    static let run: DividedRun = {
        var mixture = DividedCase.mixture
        (mixture.experts, mixture.sharedWidth, mixture.isResidual) = (2, 12, true)
        var configuration = DividedCase.all[0].configuration
        configuration.feedForward = [.moe(mixture), .dense(width: 8)]
        return DividedRun(configuration: configuration, lengths: [5, 3, 8, 4])
    }()

    /// Every rank of the expert group has one of four sequences.
    @Test(arguments: [1, 2], [true, false])
    func `four ranks for two experts`(tensorRanks: Int, dividesExperts: Bool) throws {
        try compare(tensorRanks, ExpertParallelOptions(dividesExperts: dividesExperts), groupRanksPerNode: nil)
    }

    @Test(arguments: [1, 2])
    func `four ranks on two nodes for two experts`(tensorRanks: Int) throws {
        try compare(tensorRanks, ExpertParallelOptions(), groupRanksPerNode: 2)
    }

    private func compare(_ tensorRanks: Int, _ options: ExpertParallelOptions, groupRanksPerNode: Int?) throws {
        let run = SlicedModelTests.run
        let whole = try run(WholeModel())
        let results = try InProcess.run(ranks: 4 * tensorRanks) { world in
            let sequence = world.rank / tensorRanks
            let tensor = try #require(try world.split(name: "tensor", color: sequence))
            let expert = try #require(try world.split(name: "expert", color: world.rank % tensorRanks))
            let nodes = try groupRanksPerNode.flatMap {
                try HierarchicalAllToAll(over: expert, ranksPerNode: $0 * tensorRanks)
            }
            if groupRanksPerNode != nil { _ = try #require(nodes) }
            return try run(
                TensorPartition(
                    over: tensor, experts: options, expertGroup: { _ in expert }, expertNodes: { _ in nodes }),
                sequences: sequence..<sequence + 1)
        }
        let groups = (0..<4).map { Array(results[$0 * tensorRanks..<($0 + 1) * tensorRanks]) }
        expectClose([groups.reduce(0) { $0 + $1[0].loss }], [Double(whole.loss)], within: 1e-5, "loss")
        try run.expectSameGradients(whole.gradients) { name in
            guard name.contains(".experts.") else {
                return sum(groups.map { group in joined(group.compactMap { $0.gradients[name] }, name) })
            }
            let pieces = results.compactMap { $0.gradients[name] }
            let isWhole = !options.dividesExperts && tensorRanks > 1
            #expect(pieces.count == 2 * tensorRanks && pieces.allSatisfy { $0.isPartial == isWhole })
            let parts = isWhole ? 2 : 2 * tensorRanks
            #expect(pieces.allSatisfy { $0.shard?.range.count == 16 / parts })
            // Of a slice that tensor ranks do not divide each has the gradient of its own rows.
            return sum(pieces.map { piece in joined([piece], name).map { $0.isNaN ? 0 : $0 } })
        }
    }

    private func sum(_ parts: [[Double]]) -> [Double] {
        parts.dropFirst().reduce(parts[0]) { zip($0, $1).map { $0 + $1 } }
    }

    private func error(experts: Int, width: Int, ranks: Int, tensorRanks: Int = 1) throws -> [PartitionError?] {
        var configuration = SlicedModelTests.run.configuration
        configuration.feedForward = [.moe(MoEConfiguration(experts: experts, choices: 1, width: width))]
        return try InProcess.run(ranks: ranks * tensorRanks) { [configuration] world in
            let tensor = try #require(try world.split(name: "tensor", color: world.rank / tensorRanks))
            let expert = try #require(try world.split(name: "expert", color: world.rank % tensorRanks))
            do {
                _ = try Transformer(
                    configuration, backend: CPUBackend(threadCount: 1), precision: .f32, isTrained: false,
                    partition: TensorPartition(over: tensor, expertGroup: { _ in expert }))
                return nil
            } catch let error as PartitionError { return error }
        }
    }

    @Test func `widths that do not divide into slices are refused`() throws {
        #expect(try error(experts: 2, width: 8, ranks: 8).allSatisfy { $0 == nil })
        let found = try error(experts: 2, width: 10, ranks: 8)
        for (rank, error) in found.enumerated() {
            #expect(
                error
                    == .slices(
                        parameter: "model.layers.0.mlp.experts.\(rank % 2).gate_proj.weight", units: "hidden units",
                        count: 10, slices: 4, experts: 2))
        }
        #expect(found[0]?.description.hasSuffix("Use an expert degree of 4 or 10.") ?? false)
        // 12 units are 6 on each tensor rank, which have no quarters.
        let halves = try error(experts: 1, width: 12, ranks: 4, tensorRanks: 2)
        #expect(halves[7]?.description.hasSuffix("Use an expert degree of 3 or 6.") ?? false)
        let tensor = try error(experts: 2, width: 9, ranks: 4, tensorRanks: 2)
        #expect(
            tensor[0]
                == .notDivisible(
                    parameter: "model.layers.0.mlp.experts.0.gate_proj.weight", units: "hidden units", count: 9,
                    ranks: 2))
    }

    @Test func `degrees that neither divide the experts nor are a multiple of them are refused`() throws {
        let found = try error(experts: 4, width: 8, ranks: 6)
        #expect(found.allSatisfy { $0 == .experts(count: 4, ranks: 6, layer: 0) })
        #expect(found[0]?.description.hasSuffix("Use an expert degree of 4 or 8.") ?? false)
    }
}
