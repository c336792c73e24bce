import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import Glibc

// Shape letters: V vocabulary, D model width, F feed-forward width, E experts.

/// Declares a model's parameters, in the order that lets neighbours be read as one tensor, and assembles its stages.
///
/// Names are those of Hugging Face's OLMoE and Qwen3-MoE files.
struct TransformerBuilder {
    let configuration: ModelConfiguration
    var rotary: RotaryTable?
    private(set) var parameters: [Parameter] = []
    private var tokenTable: Parameter?
    /// Mixtures by the layer that has their parameters.
    private var mixtures: [Int: MoELayer] = [:]
    private let makeRouter: Transformer.RouterFactory?
    let partition: any Partition

    init(
        _ configuration: ModelConfiguration, router: Transformer.RouterFactory? = nil,
        partition: any Partition = WholeModel()
    ) {
        self.configuration = configuration
        makeRouter = router
        self.partition = partition
    }

    var width: Int { configuration.width }
    var initial: Initializer { .normal(deviation: configuration.initialDeviation) }
    /// Projections back into the residual stream begin smaller, so that its variance does not grow with depth (GPT-2).
    var initialOutput: Initializer {
        .normal(deviation: configuration.initialDeviation / (2 * Float(max(configuration.layers, 1))).squareRoot())
    }

    mutating func declare(
        _ name: String, _ shape: Shape, role: ParameterRole = .dense, layer: Int? = nil, expert: Int? = nil,
        decays: Bool = true, cut: Cut = .whole, inputs: Int? = nil, _ initializer: Initializer
    ) throws -> Parameter {
        let holding = try partition.holding(of: name, shape, cut: cut)
        let parameter = Parameter(
            name, shape, role: role, layer: layer, expert: expert, decays: decays,
            initializer: scaled(initializer, inputs: inputs ?? shape[-1], cut), shard: holding.shard,
            sharing: holding.sharing)
        parameters.append(parameter)
        return parameter
    }

    /// How a matrix begins whose inputs set its variance; tables of vectors keep their deviation.
    private func scaled(_ initializer: Initializer, inputs: Int, _ cut: Cut) -> Initializer {
        guard let scale = configuration.initialScale, case .normal = initializer, cut != .vocabulary, cut != .stream
        else { return initializer }
        return .normal(deviation: (scale / Float(inputs)).squareRoot())
    }

    mutating func embed() throws -> EmbedStage {
        if let patches = configuration.patches { return try patchEmbed(patches) }
        let embedding = Embedding(table: try table(), positionTable: try positionTable())
        return EmbedStage(embedding: partition.embedding(embedding, vocabulary: configuration.vocabulary))
    }

    private mutating func table() throws -> Parameter {
        if let tokenTable { return tokenTable }
        let table = try declare(
            "model.embed_tokens.weight", Shape(configuration.vocabulary, width), cut: .vocabulary, initial)
        tokenTable = table
        return table
    }

    mutating func positionTable() throws -> Parameter? {
        guard configuration.position == .learned else { return nil }
        return try declare(
            "model.embed_positions.weight", Shape(configuration.maximumPositions, width), cut: .stream, initial)
    }

    mutating func head() throws -> HeadStage {
        let norm = try norm("model.norm", layer: nil)
        let vocabulary = configuration.vocabulary
        let weight =
            configuration.tiedEmbeddings
            ? try table() : try declare(configuration.headName, Shape(vocabulary, width), cut: .vocabulary, initial)
        return HeadStage(norm: norm, loss: partition.loss(LanguageModelLoss(weight: weight), vocabulary: vocabulary))
    }

    mutating func block(_ layer: Int) throws -> Block {
        let prefix = "model.layers.\(layer)"
        return Block(
            layer: layer, attentionNorm: try norm("\(prefix).input_layernorm", layer: layer),
            attention: partition.attention(try mixer(prefix, layer)),
            feedForwardNorm: try norm("\(prefix).post_attention_layernorm", layer: layer),
            shortcut: try configuration.moe(layer: layer)?.shortcut.map {
                Block.Shortcut(configuration: $0, norm: try norm("\(prefix).shortcut_layernorm", layer: layer))
            },
            feedForward: try feedForward("\(prefix).mlp", layer), handsOnInput: handsOnInput(layer))
    }

    /// Whether the block after `layer` reads the input of this one.
    private func handsOnInput(_ layer: Int) -> Bool {
        layer + 1 < configuration.layers && configuration.moe(layer: layer + 1)?.shortcut?.position == .input
    }

    private mutating func norm(_ name: String, layer: Int?) throws -> Norm {
        let weight = try declare(
            "\(name).weight", Shape(width), layer: layer, decays: false, cut: .stream, .constant(1))
        let bias =
            configuration.norm == .layer
            ? try declare("\(name).bias", Shape(width), layer: layer, decays: false, cut: .stream, .constant(0)) : nil
        return Norm(weight: weight, bias: bias, epsilon: configuration.normEpsilon)
    }

    /// What mixes the tokens of a block.
    private mutating func mixer(_ prefix: String, _ layer: Int) throws -> any DivisibleAttention {
        guard let convolution = configuration.convolution(layer: layer) else {
            return try attention("\(prefix).self_attn", layer)
        }
        return try shortConvolution("\(prefix).conv", layer, convolution)
    }

    private mutating func attention(_ prefix: String, _ layer: Int) throws -> any DivisibleAttention {
        if let latent = configuration.latent { return try latentAttention(prefix, layer, latent) }
        let head = configuration.headWidth
        let (queries, keys) = (configuration.heads, configuration.keyValueHeads)
        let heads = [("q", queries), ("k", keys), ("v", keys)]
        let weights = try heads.map { name, count in
            try declare(
                "\(prefix).\(name)_proj.weight", Shape(count * head, width), layer: layer,
                cut: .heads(count, dimension: 0), initial)
        }
        let output = try declare(
            "\(prefix).o_proj.weight", Shape(width, queries * head), layer: layer, cut: .heads(queries, dimension: 1),
            initialOutput)
        // Of what is held, as in everything below: a partition may leave some of the heads to other ranks.
        let held = weights.map { $0.localShape[0] }
        let fusedWidth = held.reduce(0, +)
        var bias: ParameterSpan?
        var outputBias: Parameter?
        if configuration.attentionBias {
            let biases = try heads.map { name, count in
                try declare(
                    "\(prefix).\(name)_proj.bias", Shape(count * head), layer: layer, decays: false,
                    cut: .heads(count, dimension: 0), .constant(0))
            }
            bias = ParameterSpan(biases, shape: Shape(fusedWidth))
            outputBias = try declare(
                "\(prefix).o_proj.bias", Shape(width), layer: layer, decays: false, cut: .stream, .constant(0))
        }
        return SelfAttention(
            layer: layer,
            shape: SelfAttention.Shape(
                heads: held[0] / head, keyValueHeads: held[1] / head, headWidth: head,
                window: configuration.slidingWindow ?? 0, clip: configuration.attentionClip,
                isCausal: configuration.patches == nil),
            projection: Linear(weight: ParameterSpan(weights, shape: Shape(fusedWidth, width)), bias: bias),
            output: Linear(weight: output, bias: outputBias),
            queryKeyNorm: try queryKeyNorm(prefix, layer), rotary: rotary)
    }

    private mutating func queryKeyNorm(_ prefix: String, _ layer: Int) throws -> SelfAttention.QueryKeyNorm? {
        guard configuration.queryKeyNorm != .none else { return nil }
        let isPerHead = configuration.queryKeyNorm == .head
        let weights = try [("q", configuration.heads), ("k", configuration.keyValueHeads)].map { name, heads in
            try declare(
                "\(prefix).\(name)_norm.weight", Shape(configuration.headWidth * (isPerHead ? 1 : heads)),
                layer: layer, decays: false, cut: isPerHead ? .eachHead : .heads(heads, dimension: 0), .constant(1))
        }
        return SelfAttention.QueryKeyNorm(
            query: weights[0], key: weights[1], epsilon: configuration.normEpsilon,
            divided: isPerHead ? nil : partition.projectionNorm(layer: layer))
    }

    private mutating func feedForward(_ prefix: String, _ layer: Int) throws -> Block.FeedForwardPart {
        switch configuration.feedForward[layer] {
        case .dense(let hidden):
            let local = try dense(prefix, layer, hidden: hidden, activation: configuration.activation)
            return .dense(partition.feedForward(local, layer: layer))
        case .moe(let moe):
            return .moe(try partition.mixture(parts(of: moe, layer).at(layer: layer), experts: moe.experts))
        }
    }

    /// Those of the layer, or of the one whose parameters it shares: declared by the first of them that is built.
    private mutating func parts(of moe: MoEConfiguration, _ layer: Int) throws -> MoELayer {
        let owner = moe.parametersOf ?? layer
        if let known = mixtures[owner] { return known }
        let made = try mixture("model.layers.\(owner).mlp", owner, moe)
        mixtures[owner] = made
        return made
    }

    private mutating func dense(
        _ prefix: String, _ layer: Int, hidden: Int, activation: Activation
    ) throws -> FeedForward {
        let inputs = try inputNames(activation).map {
            try declare(
                "\(prefix).\($0)_proj.weight", Shape(hidden, width), layer: layer, cut: .hidden(dimension: 0), initial)
        }
        let output = try declare(
            "\(prefix).down_proj.weight", Shape(width, hidden), layer: layer, cut: .hidden(dimension: 1), initialOutput)
        return FeedForward(
            input: ParameterSpan(inputs, shape: Shape(inputs.count * output.localShape[1], width)), output: output,
            activation: activation)
    }

    private func inputNames(_ activation: Activation) -> [String] {
        activation.inputsPerOutput == 2 ? ["gate", "up"] : ["up"]
    }

    private mutating func mixture(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) throws -> MoELayer {
        MoELayer(
            layer: layer, router: try router(prefix, layer, moe), bank: try bank(prefix, layer, moe),
            shared: moe.sharedWidth > 0 && moe.sharedCombination == .sum ? try shared(prefix, layer, moe) : nil,
            residual: try moe.isResidual ? residual(prefix, layer, moe) : mixedShared(prefix, layer, moe),
            dropout: moe.dropout)
    }

    private mutating func shared(
        _ prefix: String, _ layer: Int, _ moe: MoEConfiguration
    ) throws -> any FeedForwardLayer {
        try denseExpert("\(prefix).shared_expert", layer, hidden: moe.sharedWidth, moe)
    }

    /// The shared expert whose part in the sum is learned; `nil` where it is merely added, or not there.
    private mutating func mixedShared(
        _ prefix: String, _ layer: Int, _ moe: MoEConfiguration
    ) throws -> ResidualExpert? {
        guard moe.sharedWidth > 0, moe.sharedCombination != .sum else { return nil }
        return ResidualExpert(
            expert: try shared(prefix, layer, moe),
            coefficient: try declare(
                "\(prefix).coefficient.weight", Shape(moe.sharedCombination.coefficients, width), role: .router,
                layer: layer, initial))
    }

    private mutating func denseExpert(
        _ prefix: String, _ layer: Int, hidden: Int, _ moe: MoEConfiguration
    ) throws -> any FeedForwardLayer {
        partition.denseExpert(try dense(prefix, layer, hidden: hidden, activation: moe.activation), layer: layer)
    }

    private mutating func router(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) throws -> any Router {
        let projection = try moe.router.cosine.map {
            try declare(
                "\(prefix).gate.projection.weight", Shape($0.width, width), role: .router, layer: layer, initial)
        }
        let nodes = try moe.router.nodes.map {
            NodeGate(
                weight: try declare(
                    "\(prefix).gate.nodes.weight", Shape($0, width), role: .router, layer: layer, initial))
        }
        let standard = TopKRouter(
            weight: try declare(
                "\(prefix).gate.weight", Shape(moe.experts, moe.router.cosine?.width ?? width), role: .router,
                layer: layer, initial),
            cosine: try projection.flatMap { projection in
                try moe.router.cosine.map { try cosine(prefix, layer, $0, projection) }
            },
            nodes: nodes,
            selectionBias: moe.router.biasRate > 0
                ? try declare(
                    "\(prefix).gate.e_score_correction_bias", Shape(moe.experts), role: .router, layer: layer,
                    decays: false, .constant(0)) : nil,
            choices: moe.choices, configuration: moe.router, policy: moe.policy, isPadded: moe.bank == .padded,
            losses: moe.losses)
        guard let makeRouter else { return standard }
        let router = makeRouter(layer, standard)
        let declared = Set(parameters.map(ObjectIdentifier.init))
        parameters += router.parameters.filter { !declared.contains(ObjectIdentifier($0)) }
        return router
    }

    private mutating func cosine(
        _ prefix: String, _ layer: Int, _ cosine: CosineConfiguration, _ projection: Parameter
    ) throws -> CosineProjection {
        CosineProjection(
            projection: projection,
            temperature: try declare(
                "\(prefix).gate.temperature", Shape(1), role: .router, layer: layer, decays: false,
                .constant(cosine.initialParameter)), floor: cosine.floor)
    }

    private mutating func bank(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) throws -> any ExpertBank {
        let held = try partition.experts(of: moe.experts, layer: layer)
        let unit = moe.bank == .blockSparse ? moe.blockSize : 1
        func cut(_ dimension: Int) -> Cut {
            .expertHidden(dimension: dimension, unit: unit, layer: layer, experts: moe.experts)
        }
        var inputs: [Parameter] = []
        for expert in held {
            for name in inputNames(moe.activation) {
                inputs.append(
                    try declare(
                        "\(prefix).experts.\(expert).\(name)_proj.weight", Shape(moe.width, width), role: .expert,
                        layer: layer, expert: expert, cut: cut(0), initial))
            }
        }
        let outputs = try held.map { expert in
            try declare(
                "\(prefix).experts.\(expert).down_proj.weight", Shape(width, moe.width), role: .expert, layer: layer,
                expert: expert, cut: cut(1), initialOutput)
        }
        let matrices = ExpertMatrices(inputs: inputs, outputs: outputs, activation: moe.activation)
        switch moe.bank {
        // The padded layout has even groups, which grouped products compute as they are.
        case .grouped, .padded: return GroupedBank(matrices)
        case .blockSparse: return BlockSparseBank(matrices, blockSize: moe.blockSize)
        }
    }

    private mutating func residual(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) throws -> ResidualExpert {
        ResidualExpert(
            expert: try denseExpert("\(prefix).residual_expert", layer, hidden: moe.width, moe),
            coefficient: try declare(
                "\(prefix).coefficient.weight", Shape(2, width), role: .router, layer: layer, initial),
            bias: try declare(
                "\(prefix).coefficient.bias", Shape(2), role: .router, layer: layer, decays: false, .constant(0)))
    }
}
