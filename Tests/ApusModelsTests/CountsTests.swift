import ApusExperts
import ApusKernels
import ApusModels
import Testing

@Suite struct CountsTests {
    /// Counts by hand: every term is written out, sums are not taken from the code under test.
    @Test func `bench has 15.7 M parameters and 11.0 M operations forward`() throws {
        let model = try ModelConfiguration.preset(named: "bench")
        let counts = model.parameterCounts()
        let layer = 4 * 256 * 256 + 8 * 256 + 2 * 256 + 8 * 3 * 256 * 512
        let total = 2 * 4096 * 256 + 4 * layer + 256
        #expect(counts.total == total)
        #expect(counts.total == 15_739_136)
        // An expert has 3 x 256 x 512 = 393216 parameters.
        #expect(counts.experts == 32 * 393_216)
        #expect(counts.activeExperts == 8 * 393_216)
        #expect(counts.active == 15_739_136 - 24 * 393_216)
        #expect(counts.embedding == 1_048_576)
        #expect(counts.lookedUp == 1_048_576)
        #expect(counts.routers == 8192)

        let context = model.meanContext(sequence: 256)
        #expect(context == 128.5)
        let flops = model.flopsPerToken(meanContext: context)
        #expect(flops.projections == 2_097_152)
        #expect(flops.attention == 526_336)
        #expect(flops.experts == 6_291_456)
        #expect(flops.routers == 16_384)
        #expect(flops.head == 2_097_152)
        #expect(flops.denseFeedForward == 0)
        #expect(flops.forward == 11_028_480)
        // 3240 tokens a second are 107 billion operations a second.
        #expect((flops.training * 3240 / 1e9).rounded() == 107)
    }

    /// DGMoE-Share: each layer uses its gate twice, and two have one set of six experts.
    @Test(arguments: [(6, 4), (3, 3)]) func `layers that share experts choose each for itself`(experts: Int, most: Int)
    {
        var owner = MoEConfiguration(experts: experts, choices: 1, width: 24)
        owner.shortcut = ShortcutConfiguration(isDual: true)
        var other = owner
        other.parametersOf = 0
        let model = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, maximumPositions: 12, feedForward: [.moe(owner), .moe(other)])
        let counts = model.parameterCounts()
        #expect(counts.experts == experts * 3 * 16 * 24 && counts.activeExperts == most * 3 * 16 * 24)
    }

    @Test func `a layer that convolves has four matrices and its taps`() {
        let model = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, keyValueHeads: 2, maximumPositions: 12,
            feedForward: [.dense(width: 24), .dense(width: 24)],
            convolution: ConvolutionConfiguration(layers: [0], width: 3))
        // Tables; queries and output, keys and values; a convolution; two layers of three matrices; five norms.
        let attention = 2 * 16 * 16 + 2 * 16 * 8
        let convolution = 4 * 16 * 16 + 3 * 16
        #expect(model.parameterCounts().total == 2 * 20 * 16 + attention + convolution + 2 * 3 * 16 * 24 + 5 * 16)
        let flops = model.flopsPerToken(meanContext: 4)
        #expect(flops.projections == Double(2 * attention + 2 * 4 * 16 * 16))
        // Sixteen numbers with four keys, twice; a multiplication and an addition for each tap.
        #expect(flops.attention == Double(2 * 2 * 16 * 4 + 2 * 3 * 16))
    }

    @Test func `a token of an annealed gate meets one expert when it is served`() throws {
        var moe = MoEConfiguration(experts: 4, choices: 4, width: 8, activation: .relu)
        moe.router.annealing = DenseToSparse(steps: 5)
        let model = ModelConfiguration(
            vocabulary: 20, width: 16, heads: 4, maximumPositions: 12, feedForward: [.moe(moe)])
        let counts = model.parameterCounts()
        // An expert has 2 x 16 x 8 parameters.
        #expect(counts.experts == 4 * 256 && counts.activeExperts == 256 && counts.total - counts.active == 3 * 256)
        // In training it meets as many as the gate leaves it: 2 x 256 operations each.
        #expect(model.flopsPerToken(meanContext: 4).experts == 4 * 512)
        #expect(model.flopsPerToken(meanContext: 4, choices: [0: 1.5]).experts == 1.5 * 512)
    }

    /// Published totals and active parameters, which count tables and head whole.
    @Test(arguments: [
        ("mixtral-8x7b", 46_702_792_704, 12_879_925_248), ("olmoe-1b-7b", 6_919_161_856, 1_282_017_280),
        ("qwen3-30b-a3b", 30_532_122_624, 3_353_032_704),
    ])
    func `current models have their published sizes`(name: String, total: Int, active: Int) throws {
        let counts = try ModelConfiguration.preset(named: name).parameterCounts()
        #expect(counts.total == total)
        #expect(counts.active == active)
    }

    @Test func `Mixtral by hand`() throws {
        let expert = 3 * 4096 * 14_336
        let attention = 2 * 4096 * 4096 + 2 * 1024 * 4096
        let layer = attention + 8 * 4096 + 2 * 4096 + 8 * expert
        let total = 2 * 32_000 * 4096 + 32 * layer + 4096
        let active = total - 32 * 6 * expert
        #expect(total == 46_702_792_704)
        #expect(active == 12_879_925_248)
    }

    /// The table of MegaBlocks (its section 6): millions of parameters.
    @Test(arguments: [
        ("megablocks-dense-xs", 46), ("megablocks-dense-small", 125), ("megablocks-dense-medium", 356),
        ("megablocks-dense-large", 760), ("megablocks-moe-xs", 839), ("megablocks-moe-small", 3693),
        ("megablocks-moe-medium", 13_041),
    ])
    func `MegaBlocks models have the sizes of its table`(name: String, millions: Double) throws {
        let total = try ModelConfiguration.preset(named: name).parameterCounts().total
        #expect((Double(total) / 1e6).rounded() == millions)
    }

    /// The table says 1316 M: its feed-forward layers have biases, 5 D a layer, which Apus' have not.
    @Test func `MegaBlocks' XL is smaller by its biases`() throws {
        let total = try ModelConfiguration.preset(named: "megablocks-dense-xl").parameterCounts().total
        #expect((Double(total) / 1e6).rounded() == 1315)
        #expect((Double(total + 24 * 5 * 2048) / 1e6).rounded() == 1316)
    }

    /// The table's operations for a training step on one sequence count attention over all 1024 keys.
    @Test(arguments: [
        ("megablocks-dense-xs", 316), ("megablocks-dense-small", 879), ("megablocks-dense-medium", 2487),
        ("megablocks-dense-large", 5122), ("megablocks-dense-xl", 8684),
    ])
    func `MegaBlocks models take the operations of its table`(name: String, billions: Double) throws {
        let flops = try ModelConfiguration.preset(named: name).flopsPerToken(meanContext: 1024)
        #expect((flops.training * 1024 / 1e9).rounded() == billions)
    }

    /// DeepSpeed-MoE, MoS and ScMoE as they are reported, in billions, with the digits given there.
    @Test(arguments: [
        ("deepspeed-moe-350m-128", 13, 0.3), ("deepspeed-moe-1.3b-128", 52, 0.5),
        ("deepspeed-moe-8b-128", 349, 0.5), ("deepspeed-moe-47b-128", 2024, 1), ("deepspeed-pr-moe-350m", 4, 0.2),
        ("deepspeed-pr-moe-1.3b", 31, 0.5), ("deepspeed-mos-350m", 3.5, 0.1), ("deepspeed-mos-1.3b", 27, 0.5),
        ("scmoe-gpt2-small", 0.323, 0.001), ("scmoe-gpt3-xl", 4.1, 0.05), ("scmoe-llama2", 6.7, 0.05),
        ("gpt-1.3b", 1.3, 0.05), ("gpt-2.7b", 2.7, 0.06), ("gpt-6.7b", 6.7, 0.06), ("gpt-13b", 13, 0.2),
    ])
    func `papers' models have the sizes they report`(name: String, billions: Double, tolerance: Double) throws {
        let total = try ModelConfiguration.preset(named: name).parameterCounts().total
        #expect(abs(Double(total) / 1e9 - billions) <= tolerance, "\(total)")
    }

    /// Where the reports and the sizes they give do not agree: what the sizes make.
    @Test(arguments: [
        ("deepspeed-moe-24b-128", 1064.9, 1047.5), ("deepspeed-moe-2.4b-128", 107.7, 107.06),
        ("scmoe-gpt2-medium", 1.7, 1.866), ("ted-6.7b-16", 40, 38.9),
    ])
    func `sizes that do not make the reported total`(name: String, reported: Double, made: Double) throws {
        let total = Double(try ModelConfiguration.preset(named: name).parameterCounts().total) / 1e9
        #expect(abs(total / made - 1) < 0.002, "\(total)")
        #expect(abs(total / reported - 1) > 0.005)
    }

    /// DeepSeek's reports: totals and what a token meets, in billions with the digits given there.
    @Test(arguments: [
        ("deepseek-v3", 671, 37, 1), ("deepseek-v2", 236, 21, 0.5), ("deepseek-v2-lite", 15.7, 2.4, 0.3),
    ])
    func `DeepSeek models have the sizes of their reports`(
        name: String, total: Double, active: Double, tolerance: Double
    ) throws {
        let model = try ModelConfiguration.preset(named: name)
        let counts = model.parameterCounts()
        #expect(abs(Double(counts.total) / 1e9 - total) < tolerance, "\(counts.total)")
        #expect(abs(Double(counts.active) / 1e9 - active) < tolerance, "\(counts.active)")
        // Each matrix that a token meets is multiplied with once; the table of tokens is looked up.
        let flops = model.flopsPerToken(meanContext: 0)
        let norms = Double(counts.active) * 1e-3
        #expect(abs(flops.forward / 2 - Double(counts.active - counts.lookedUp)) < norms)
        // Scores of keys 192 wide, values of 128.
        let attention = model.flopsPerToken(meanContext: 10).attention
        #expect(attention == Double(model.layers * model.heads * (192 + 128) * 2 * 10))
    }

    /// The eight-layer model of GPU measurements is known as 6.78 B and, without its token table, 1.04 B active.
    @Test func `OLMoE in eight layers`() throws {
        let counts = try ModelConfiguration.preset(named: "olmoe-8-layers").parameterCounts()
        #expect((Double(counts.total) / 1e7).rounded() == 678)
        #expect((Double((counts.active - counts.lookedUp)) / 1e7).rounded() == 104)
    }

    @Test func `a dense model is active whole`() throws {
        let counts = try ModelConfiguration.preset(named: "quickstart-dense").parameterCounts()
        #expect(counts.total == counts.active)
        #expect(counts.expertShare == 0)
        let mixture = try ModelConfiguration.preset(named: "quickstart").parameterCounts()
        #expect(mixture.active - mixture.routers == counts.active)
    }

    @Test func `shared and residual experts and windows count`() {
        let moe = MoEConfiguration(
            experts: 4, choices: 1, width: 6, activation: .gelu,
            router: RouterConfiguration(scoring: .sigmoid, biasRate: 0.1),
            sharedWidth: 5, isResidual: true)
        let model = ModelConfiguration(
            vocabulary: 10, width: 8, heads: 2, maximumPositions: 12, norm: .layer, position: .learned,
            queryKeyNorm: .head, attentionBias: true, slidingWindow: 3, feedForward: [.moe(moe)], tiedEmbeddings: true)
        let counts = model.parameterCounts()
        let expert = 2 * 8 * 6
        let attention = 4 * 64 + 4 * 8 + 2 * 4
        let rest = 2 * 8 * 5 + expert + 2 * 8 + 2
        let tables = 10 * 8 + 12 * 8
        let total = tables + 3 * 16 + attention + 4 * expert + 36 + rest
        #expect(counts.experts == 4 * expert)
        #expect(counts.routers == 54)
        #expect(counts.total == total)
        #expect(counts.embedding == tables)
        // The tied token table is the head as well; positions are only looked up.
        #expect(counts.lookedUp == 12 * 8)
        // Queries see 1, 2, 3, 3, 3 keys.
        #expect(model.meanContext(sequence: 5) == 2.4)
        #expect(model.meanContext(sequence: 2) == 1.5)
        let flops = model.flopsPerToken(meanContext: 2.4)
        // Shared 80, residual 96 and coefficient 16 products; an expert 96.
        #expect(flops.denseFeedForward == 384)
        #expect(flops.experts == 192)
        #expect(abs(flops.attention - 76.8) < 1e-9)
    }
}
