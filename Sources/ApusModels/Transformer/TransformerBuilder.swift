import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import Glibc

// Shape letters: V vocabulary, D model width, F feed-forward width, E experts.

/// Declares a decoder's parameters, in the order that lets neighbours be read as one tensor, and assembles its stages.
///
/// Names are those of Hugging Face's OLMoE and Qwen3-MoE files.
struct TransformerBuilder {
    let configuration: ModelConfiguration
    var rotary: RotaryTable?
    private(set) var parameters: [Parameter] = []
    private var tokenTable: Parameter?
    private let makeRouter: Transformer.RouterFactory?

    init(_ configuration: ModelConfiguration, router: Transformer.RouterFactory? = nil) {
        self.configuration = configuration
        makeRouter = router
    }

    private var width: Int { configuration.width }
    private var initial: Initializer { .normal(deviation: configuration.initialDeviation) }
    /// Projections back into the residual stream begin smaller, so that its variance does not grow with depth (GPT-2).
    private var initialOutput: Initializer {
        .normal(deviation: configuration.initialDeviation / (2 * Float(max(configuration.layers, 1))).squareRoot())
    }

    private mutating func declare(
        _ name: String, _ shape: Shape, role: ParameterRole = .dense, layer: Int? = nil, expert: Int? = nil,
        decays: Bool = true, _ initializer: Initializer
    ) -> Parameter {
        let parameter = Parameter(
            name, shape, role: role, layer: layer, expert: expert, decays: decays, initializer: initializer)
        parameters.append(parameter)
        return parameter
    }

    mutating func embed() -> EmbedStage {
        EmbedStage(embedding: Embedding(table: table(), positionTable: positionTable()))
    }

    private mutating func table() -> Parameter {
        if let tokenTable { return tokenTable }
        let table = declare("model.embed_tokens.weight", Shape(configuration.vocabulary, width), initial)
        tokenTable = table
        return table
    }

    private mutating func positionTable() -> Parameter? {
        guard configuration.position == .learned else { return nil }
        return declare("model.embed_positions.weight", Shape(configuration.maximumPositions, width), initial)
    }

    mutating func head() -> HeadStage {
        let norm = norm("model.norm", layer: nil)
        let weight =
            configuration.tiedEmbeddings
            ? table() : declare("lm_head.weight", Shape(configuration.vocabulary, width), initial)
        return HeadStage(norm: norm, loss: LanguageModelLoss(weight: weight))
    }

    mutating func block(_ layer: Int) -> Block {
        let prefix = "model.layers.\(layer)"
        return Block(
            layer: layer, attentionNorm: norm("\(prefix).input_layernorm", layer: layer),
            attention: attention("\(prefix).self_attn", layer),
            feedForwardNorm: norm("\(prefix).post_attention_layernorm", layer: layer),
            feedForward: feedForward("\(prefix).mlp", layer))
    }

    private mutating func norm(_ name: String, layer: Int?) -> Norm {
        let weight = declare("\(name).weight", Shape(width), layer: layer, decays: false, .constant(1))
        let bias =
            configuration.norm == .layer
            ? declare("\(name).bias", Shape(width), layer: layer, decays: false, .constant(0)) : nil
        return Norm(weight: weight, bias: bias, epsilon: configuration.normEpsilon)
    }

    private mutating func attention(_ prefix: String, _ layer: Int) -> SelfAttention {
        let head = configuration.headWidth
        let (queries, keys) = (configuration.heads * head, configuration.keyValueHeads * head)
        let rows = [("q", queries), ("k", keys), ("v", keys)]
        let weights = rows.map { name, count in
            declare("\(prefix).\(name)_proj.weight", Shape(count, width), layer: layer, initial)
        }
        let output = declare("\(prefix).o_proj.weight", Shape(width, queries), layer: layer, initialOutput)
        var bias: ParameterSpan?
        var outputBias: Parameter?
        if configuration.attentionBias {
            let biases = rows.map { name, count in
                declare("\(prefix).\(name)_proj.bias", Shape(count), layer: layer, decays: false, .constant(0))
            }
            bias = ParameterSpan(biases, shape: Shape(queries + 2 * keys))
            outputBias = declare("\(prefix).o_proj.bias", Shape(width), layer: layer, decays: false, .constant(0))
        }
        return SelfAttention(
            layer: layer,
            shape: SelfAttention.Shape(
                heads: configuration.heads, keyValueHeads: configuration.keyValueHeads, headWidth: head,
                window: configuration.slidingWindow ?? 0, clip: configuration.attentionClip),
            projection: Linear(weight: ParameterSpan(weights, shape: Shape(queries + 2 * keys, width)), bias: bias),
            output: Linear(weight: output, bias: outputBias),
            queryKeyNorm: queryKeyNorm(prefix, layer, queries: queries, keys: keys), rotary: rotary)
    }

    private mutating func queryKeyNorm(
        _ prefix: String, _ layer: Int, queries: Int, keys: Int
    ) -> SelfAttention.QueryKeyNorm? {
        guard configuration.queryKeyNorm != .none else { return nil }
        let isPerHead = configuration.queryKeyNorm == .head
        let sizes = isPerHead ? (configuration.headWidth, configuration.headWidth) : (queries, keys)
        return SelfAttention.QueryKeyNorm(
            query: declare("\(prefix).q_norm.weight", Shape(sizes.0), layer: layer, decays: false, .constant(1)),
            key: declare("\(prefix).k_norm.weight", Shape(sizes.1), layer: layer, decays: false, .constant(1)),
            epsilon: configuration.normEpsilon)
    }

    private mutating func feedForward(_ prefix: String, _ layer: Int) -> Block.FeedForwardPart {
        switch configuration.feedForward[layer] {
        case .dense(let hidden):
            return .dense(dense(prefix, layer, hidden: hidden, activation: configuration.activation))
        case .moe(let moe):
            return .moe(mixture(prefix, layer, moe))
        }
    }

    private mutating func dense(
        _ prefix: String, _ layer: Int, hidden: Int, activation: Activation
    ) -> FeedForward {
        let inputs = inputNames(activation).map {
            declare("\(prefix).\($0)_proj.weight", Shape(hidden, width), layer: layer, initial)
        }
        let output = declare("\(prefix).down_proj.weight", Shape(width, hidden), layer: layer, initialOutput)
        return FeedForward(
            input: ParameterSpan(inputs, shape: Shape(inputs.count * hidden, width)), output: output,
            activation: activation)
    }

    private func inputNames(_ activation: Activation) -> [String] {
        activation.inputsPerOutput == 2 ? ["gate", "up"] : ["up"]
    }

    private mutating func mixture(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) -> MoELayer {
        MoELayer(
            layer: layer, router: router(prefix, layer, moe), bank: bank(prefix, layer, moe),
            shared: moe.sharedWidth > 0
                ? dense("\(prefix).shared_expert", layer, hidden: moe.sharedWidth, activation: moe.activation) : nil,
            residual: moe.isResidual ? residual(prefix, layer, moe) : nil)
    }

    private mutating func router(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) -> any Router {
        let standard = TopKRouter(
            weight: declare("\(prefix).gate.weight", Shape(moe.experts, width), role: .router, layer: layer, initial),
            selectionBias: moe.router.biasRate > 0
                ? declare(
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

    private mutating func bank(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) -> any ExpertBank {
        var inputs: [Parameter] = []
        for expert in 0..<moe.experts {
            for name in inputNames(moe.activation) {
                inputs.append(
                    declare(
                        "\(prefix).experts.\(expert).\(name)_proj.weight", Shape(moe.width, width), role: .expert,
                        layer: layer, expert: expert, initial))
            }
        }
        let outputs = (0..<moe.experts).map { expert in
            declare(
                "\(prefix).experts.\(expert).down_proj.weight", Shape(width, moe.width), role: .expert, layer: layer,
                expert: expert, initialOutput)
        }
        let matrices = ExpertMatrices(inputs: inputs, outputs: outputs, activation: moe.activation)
        switch moe.bank {
        // The padded layout has even groups, which grouped products compute as they are.
        case .grouped, .padded: return GroupedBank(matrices)
        case .blockSparse: return BlockSparseBank(matrices, blockSize: moe.blockSize)
        }
    }

    private mutating func residual(_ prefix: String, _ layer: Int, _ moe: MoEConfiguration) -> ResidualExpert {
        ResidualExpert(
            expert: dense("\(prefix).residual_expert", layer, hidden: moe.width, activation: moe.activation),
            coefficient: declare(
                "\(prefix).coefficient.weight", Shape(2, width), role: .router, layer: layer, initial),
            bias: declare(
                "\(prefix).coefficient.bias", Shape(2), role: .router, layer: layer, decays: false, .constant(0)))
    }
}
