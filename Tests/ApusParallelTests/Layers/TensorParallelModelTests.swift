import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

/// Models whose parts are cut in every way that there is.
struct DividedCase: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let configuration: ModelConfiguration

    /// A vocabulary of 23 divides over no number of ranks.
    init(_ name: String, _ change: (inout ModelConfiguration) -> Void) {
        var model = ModelConfiguration(
            vocabulary: 23, width: 24, heads: 8, keyValueHeads: 4, headWidth: 4, maximumPositions: 16,
            feedForward: [.dense(width: 24), .dense(width: 8)])
        change(&model)
        testDescription = name
        configuration = model
    }

    static let mixture = MoEConfiguration(
        experts: 4, choices: 2, width: 16, losses: RouterLosses(balance: 0.05, z: 0.01))

    static let all: [DividedCase] = [
        DividedCase("grouped queries, gated") { _ in },
        DividedCase("LayerNorm, learned positions, biases, GELU, tied") { model in
            (model.norm, model.position, model.attentionBias) = (.layer, .learned, true)
            (model.activation, model.tiedEmbeddings) = (.gelu, true)
        },
        DividedCase("query and key norm over the projection, clip, tied") { model in
            (model.queryKeyNorm, model.attentionClip, model.tiedEmbeddings) = (.projection, 0.8, true)
        },
        DividedCase("query and key norm by head, window") { model in
            (model.queryKeyNorm, model.slidingWindow) = (.head, 5)
        },
        DividedCase("biases, rotary, norm over the projection, a key head for each query head, ReLU") { model in
            (model.attentionBias, model.queryKeyNorm, model.keyValueHeads) = (true, .projection, 8)
            model.activation = .relu
        },
        DividedCase("mixture with shared and residual expert") { model in
            var moe = mixture
            (moe.sharedWidth, moe.isResidual) = (12, true)
            model.feedForward = [.moe(moe), .dense(width: 8)]
        },
        DividedCase("mixture with capacity, pooled balance; block-sparse mixture") { model in
            var (padded, sparse) = (mixture, mixture)
            (padded.bank, padded.policy) = (.padded, .capacity(factor: 1, minimum: 1, order: .position))
            (sparse.bank, sparse.blockSize) = (.blockSparse, 4)
            (padded.losses.scope, sparse.losses.scope) = (.pooled, .pooled)
            model.feedForward = [.moe(padded), .moe(sparse)]
        },
        DividedCase("latent attention, compressed queries, narrow values") { model in
            model.keyValueHeads = 8
            model.latent = LatentConfiguration(
                queryRank: 10, keyValueRank: 9, plainWidth: 4, rotaryWidth: 4, valueWidth: 6)
            model.headWidth = 8
        },
        DividedCase("latent attention, queries straight, wide values") { model in
            model.keyValueHeads = 8
            model.latent = LatentConfiguration(keyValueRank: 9, plainWidth: 2, rotaryWidth: 4, valueWidth: 9)
            model.headWidth = 6
        },
    ]
}

/// A model divided over ranks computes what one rank computes: loss, every token's loss, every gradient.
@Suite struct TensorParallelModelTests {
    @Test(arguments: DividedCase.all, [1, 2, 4])
    func `divided layers`(_ sample: DividedCase, ranks: Int) throws {
        try DividedRun(configuration: sample.configuration).expectEqualsWhole(ranks: ranks, dividesTokens: false)
    }

    @Test(arguments: DividedCase.all, [2, 4])
    func `divided layers and tokens`(_ sample: DividedCase, ranks: Int) throws {
        try DividedRun(configuration: sample.configuration).expectEqualsWhole(ranks: ranks, dividesTokens: true)
    }

    @Test(arguments: DividedCase.all, [false, true])
    func `checkpointed blocks, with and without kept outputs`(_ sample: DividedCase, dividesTokens: Bool) throws {
        for keptOutputs in [[], .reductions, .all] as [KeptOutputs] {
            try DividedRun(configuration: sample.configuration, checkpointing: true, keptOutputs: keptOutputs)
                .expectEqualsWhole(ranks: 2, dividesTokens: dividesTokens)
        }
    }

    @Test(arguments: [false, true])
    func `whole experts on every rank`(dividesTokens: Bool) throws {
        try DividedRun(configuration: DividedCase.all[5].configuration).expectEqualsWhole(
            ranks: 2, dividesTokens: dividesTokens, experts: ExpertParallelOptions(dividesExperts: false))
    }

    /// 4 ranks: tensor groups {0, 1} and {2, 3}, each with one of two sequences; expert groups {0, 2} and {1, 3}.
    @Test(
        arguments: [
            ExpertParallelOptions(), ExpertParallelOptions(dropsDuplicates: false),
            ExpertParallelOptions(dividesExperts: false), ExpertParallelOptions(fusesReduceScatter: false),
        ], [false, true])
    func `tensor and expert parallelism together`(experts: ExpertParallelOptions, dividesTokens: Bool) throws {
        for checkpointing in [false, true] {
            let run = DividedRun(
                configuration: DividedCase.all[5].configuration, checkpointing: checkpointing, keptOutputs: .all)
            let whole = try run(WholeModel())
            let results = try InProcess.run(ranks: 4) { world in
                let tensor = try #require(try world.split(name: "tensor", color: world.rank / 2))
                let expert = try #require(try world.split(name: "expert", color: world.rank % 2))
                return try run(
                    TensorPartition(
                        over: tensor, dividesTokens: dividesTokens, experts: experts, expertGroup: { _ in expert }),
                    sequences: world.rank / 2..<world.rank / 2 + 1)
            }
            expectClose([results[0].loss + results[2].loss], [Double(whole.loss)], within: 1e-5, "loss")
            expectClose(
                results[1].perToken + results[3].perToken, whole.perToken.map(Double.init), within: 1e-5, "losses")
            try run.expectSameGradients(whole.gradients) { name in
                // Each group has some of the experts, and a part of the gradient of everything else.
                [results[..<2], results[2...]].map { $0.compactMap { $0.gradients[name] } }.filter { !$0.isEmpty }
                    .map { joined($0, name) }
                    .reduce(Array(repeating: 0, count: whole.gradients[name]?.values.count ?? 0)) { sum, part in
                        zip(sum, part).map { $0 + $1 }
                    }
            }
        }
    }

    @Test(arguments: [0, 3, 4], [false, true])
    func `bf16 weights and activations`(sample: Int, dividesTokens: Bool) throws {
        try DividedRun(configuration: DividedCase.all[sample].configuration, precision: .bf16)
            .expectEqualsWhole(ranks: 2, dividesTokens: dividesTokens, within: 5e-2)
    }

    @Test func `one rank computes the bits of the undivided model`() throws {
        for sample in DividedCase.all {
            let run = DividedRun(configuration: sample.configuration)
            let whole = try run(WholeModel())
            let divided = try run(TensorPartition(over: SingleRank(), dividesTokens: true))
            #expect(divided.loss == whole.loss && divided.perToken == whole.perToken)
            for (name, gradient) in whole.gradients {
                #expect(divided.gradients[name]?.values == gradient.values, "\(name) of \(sample.testDescription)")
            }
        }
    }

    @Test func `each rank holds its share`() throws {
        let run = DividedRun(configuration: DividedCase.all[5].configuration)
        let whole = try run(WholeModel()).gradients
        let results = try InProcess.run(ranks: 4) { try run(TensorPartition(over: $0)) }
        func count(_ gradients: [String: GradientPiece], _ isCounted: (String) -> Bool) -> Int {
            gradients.filter { isCounted($0.key) }.reduce(0) { $0 + $1.value.values.count }
        }
        let isDivided: (String) -> Bool = { $0.contains("_proj.weight") }
        for result in results { #expect(4 * count(result.gradients, isDivided) == count(whole, isDivided)) }
        // 23 entries: 5, 6, 6 and 6 rows of 24.
        let rows = results.map { count($0.gradients) { $0.contains("embed_tokens") } / 24 }
        #expect(rows == [5, 6, 6, 6])
    }

    @Test func `parameters whose gradients must be summed say so`() throws {
        let names = try [false, true].map { dividesTokens in
            try InProcess.run(ranks: 2) { collective in
                let run = DividedRun(configuration: DividedCase.all[3].configuration)
                let result = try run(TensorPartition(over: collective, dividesTokens: dividesTokens))
                return Set(result.gradients.filter { $0.value.isPartial }.map { $0.key })
            }[0]
        }
        let norms = Set(
            [0, 1].flatMap { layer in
                ["q_norm", "k_norm"].map { "model.layers.\(layer).self_attn.\($0).weight" }
            })
        #expect(names[0] == norms)
        #expect(names[1].subtracting(norms).allSatisfy { $0.contains("layernorm") || $0 == "model.norm.weight" })
        #expect(names[1].count == norms.count + 5)
    }

    @Test(arguments: [false, true])
    func `logits of all ranks`(dividesTokens: Bool) throws {
        let configuration = DividedCase.all[1].configuration
        @Sendable func logits(_ partition: any Partition) throws -> [Float] {
            let backend = CPUBackend(threadCount: 1)
            let model = try Transformer(
                configuration, backend: backend, precision: .f32, isTrained: false, partition: partition)
            try model.store.assignFullValues(backend)
            let tape = Tape(backend: backend, isRecording: false)
            let layout = try TokenLayout.sequences([6, 2], backend: backend)
            return try model.logits(
                tokens: backend.allocator.integers([3, 22, 0, 7, 11, 1, 19, 5]),
                rows: backend.allocator.integers([7, 2]),
                MoEContext(forward: ForwardContext(tape: tape, layout: layout))
            ).floats()
        }
        let expected = try logits(WholeModel()).map(Double.init)
        #expect(expected.count == 2 * 23)
        let found = try InProcess.run(ranks: 4) { group in
            try logits(TensorPartition(over: group, dividesTokens: dividesTokens))
        }
        for rank in found { expectClose(rank, expected, within: 1e-5, "logits") }
    }
}
