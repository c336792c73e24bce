import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import Testing

/// What cannot be divided is refused before anything is computed, with what would work.
@Suite struct PartitionErrorTests {
    private func error(ranks: Int, _ change: (inout ModelConfiguration) -> Void) throws -> PartitionError? {
        let configuration = DividedCase("", change).configuration
        do {
            _ = try InProcess.run(ranks: ranks) { group in
                _ = try Transformer(
                    configuration, backend: CPUBackend(threadCount: 1), precision: .f32, isTrained: false,
                    partition: TensorPartition(over: group))
            }
            return nil
        } catch let error as PartitionError { return error }
    }

    @Test func `heads, hidden units, blocks and vocabularies that do not divide`() throws {
        #expect(try error(ranks: 4) { _ in } == nil)
        #expect(
            try error(ranks: 4) { $0.keyValueHeads = 2 }
                == .notDivisible(
                    parameter: "model.layers.0.self_attn.k_proj.weight", units: "heads", count: 2, ranks: 4))
        #expect(
            try error(ranks: 3) { $0.feedForward = [.dense(width: 24)] }
                == .notDivisible(
                    parameter: "model.layers.0.self_attn.q_proj.weight", units: "heads", count: 8, ranks: 3))
        #expect(
            try error(ranks: 4) { $0.feedForward = [.dense(width: 10)] }
                == .notDivisible(
                    parameter: "model.layers.0.mlp.gate_proj.weight", units: "hidden units", count: 10, ranks: 4))
        #expect(
            try error(ranks: 4) { model in
                var moe = DividedCase.mixture
                (moe.bank, moe.blockSize) = (.blockSparse, 8)
                model.feedForward = [.moe(moe)]
            }
                == .notDivisible(
                    parameter: "model.layers.0.mlp.experts.0.gate_proj.weight", units: "blocks of 8 hidden units",
                    count: 2, ranks: 4))
        #expect(
            try error(ranks: 4) { $0.vocabulary = 3 }
                == .notDivisible(
                    parameter: "model.embed_tokens.weight", units: "vocabulary entries", count: 3, ranks: 4))
    }

    @Test func `tokens that sequence parallelism cannot divide`() throws {
        let run = DividedRun(configuration: DividedCase.all[0].configuration, lengths: [4, 3])
        #expect(throws: PartitionError.tokens(count: 7, ranks: 2)) {
            try InProcess.run(ranks: 2) { try run(TensorPartition(over: $0, dividesTokens: true)) }
        }
        try run.expectEqualsWhole(ranks: 2, dividesTokens: false)
    }

    @Test func `experts that do not divide`() throws {
        let run = DividedRun(configuration: DividedCase.all[5].configuration)
        #expect(throws: PartitionError.experts(count: 4, ranks: 3, layer: 0)) {
            try InProcess.run(ranks: 3) { group in
                try run(TensorPartition(over: SingleRank(), expertGroup: { _ in group }))
            }
        }
    }

    @Test func `messages name the nearest degrees that work`() {
        let heads = PartitionError.notDivisible(parameter: "k", units: "heads", count: 8, ranks: 3)
        #expect(heads.description.hasSuffix("Use a tensor degree of 2 or 4."))
        let few = PartitionError.notDivisible(parameter: "k", units: "heads", count: 2, ranks: 4)
        #expect(few.description.hasSuffix("Use a tensor degree of 2."))
        #expect(PartitionError.tokens(count: 7, ranks: 4).description.contains("4 and 8"))
        #expect(PartitionError.experts(count: 6, ranks: 4, layer: 2).description.hasSuffix("degree of 3 or 6."))
    }
}
