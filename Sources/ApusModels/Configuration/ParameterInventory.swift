import ApusExperts
import ApusKernels
public import ApusNN

// Shape letters: D model width, F expert width, E experts, V vocabulary.

/// One tensor that a model owns.
public struct ParameterDescription: Sendable, Equatable {
    /// The name in Apus and in its checkpoints: what the Hub calls the tensors of Qwen3-MoE and OLMoE models.
    public let name: String
    /// Extents, linear weights as (out, in).
    public let shape: [Int]
    /// Which flat buffer it belongs to.
    public let role: ParameterRole
    /// Global layer, when it belongs to one.
    public let layer: Int?
    /// Global expert, when it belongs to one.
    public let expert: Int?

    /// Number of elements.
    public var count: Int { shape.reduce(1, *) }
}

extension ModelConfiguration {
    /// The head's weights, where they are its own.
    var headName: String { patches == nil ? "lm_head.weight" : "classifier.weight" }

    /// Every tensor of the model in the order a token meets them: the one list of names and shapes.
    ///
    /// The configuration's sizes must have passed ``checkSizes()``.
    public func parameterInventory() -> [ParameterDescription] {
        var list = InventoryBuilder(configuration: self)
        if let patches {
            list.add("model.embed_patches.weight", [width, patches.values])
            list.add("model.embed_patches.bias", [width])
        } else {
            list.add("model.embed_tokens.weight", [vocabulary, width])
        }
        if position == .learned { list.add("model.embed_positions.weight", [maximumPositions, width]) }
        for layer in feedForward.indices { list.addBlock(layer) }
        list.addNorm("model.norm")
        if !tiedEmbeddings { list.add(headName, [vocabulary, width]) }
        return list.parameters
    }
}

private struct InventoryBuilder {
    let configuration: ModelConfiguration
    var parameters: [ParameterDescription] = []
    var layer: Int?

    init(configuration: ModelConfiguration) { self.configuration = configuration }

    mutating func add(_ name: String, _ shape: [Int], role: ParameterRole = .dense, expert: Int? = nil) {
        parameters.append(ParameterDescription(name: name, shape: shape, role: role, layer: layer, expert: expert))
    }

    mutating func addNorm(_ name: String) {
        add("\(name).weight", [configuration.width])
        if configuration.norm == .layer { add("\(name).bias", [configuration.width]) }
    }

    mutating func addBlock(_ index: Int) {
        layer = index
        defer { layer = nil }
        let prefix = "model.layers.\(index)"
        addNorm("\(prefix).input_layernorm")
        if let convolution = configuration.convolution(layer: index) {
            addConvolution("\(prefix).conv", convolution)
        } else {
            addAttention("\(prefix).self_attn")
        }
        addNorm("\(prefix).post_attention_layernorm")
        if configuration.moe(layer: index)?.shortcut != nil { addNorm("\(prefix).shortcut_layernorm") }
        switch configuration.feedForward[index] {
        case .dense(let width):
            addFeedForward("\(prefix).mlp", width: width, activation: configuration.activation)
        case .moe(let moe) where moe.parametersOf != nil: break
        case .moe(let moe):
            addMixture("\(prefix).mlp", moe)
        }
    }

    private mutating func addConvolution(_ prefix: String, _ convolution: ConvolutionConfiguration) {
        let width = configuration.width
        for name in ConvolutionConfiguration.projections { add("\(prefix).\(name)_proj.weight", [width, width]) }
        add("\(prefix).taps.weight", [convolution.width, width])
        add("\(prefix).o_proj.weight", [width, width])
    }

    /// Under the names of DeepSeek's files.
    private mutating func addLatentAttention(_ prefix: String, _ latent: LatentConfiguration) {
        let (model, heads) = (configuration.width, configuration.heads)
        if let rank = latent.queryRank {
            add("\(prefix).q_a_proj.weight", [rank, model])
            add("\(prefix).q_a_layernorm.weight", [rank])
            add("\(prefix).q_b_proj.weight", [heads * latent.keyWidth, rank])
        } else {
            add("\(prefix).q_proj.weight", [heads * latent.keyWidth, model])
        }
        add("\(prefix).kv_a_proj_with_mqa.weight", [latent.keyValueRank + latent.rotaryWidth, model])
        add("\(prefix).kv_a_layernorm.weight", [latent.keyValueRank])
        add("\(prefix).kv_b_proj.weight", [heads * (latent.plainWidth + latent.valueWidth), latent.keyValueRank])
        add("\(prefix).o_proj.weight", [model, heads * latent.valueWidth])
    }

    private mutating func addAttention(_ prefix: String) {
        if let latent = configuration.latent { return addLatentAttention(prefix, latent) }
        let queries = configuration.heads * configuration.headWidth
        let keys = configuration.keyValueHeads * configuration.headWidth
        let projections = [
            ("q_proj", queries, configuration.width), ("k_proj", keys, configuration.width),
            ("v_proj", keys, configuration.width), ("o_proj", configuration.width, queries),
        ]
        for (name, rows, columns) in projections {
            add("\(prefix).\(name).weight", [rows, columns])
            if configuration.attentionBias { add("\(prefix).\(name).bias", [rows]) }
        }
        switch configuration.queryKeyNorm {
        case .none: break
        case .projection:
            add("\(prefix).q_norm.weight", [queries])
            add("\(prefix).k_norm.weight", [keys])
        case .head:
            add("\(prefix).q_norm.weight", [configuration.headWidth])
            add("\(prefix).k_norm.weight", [configuration.headWidth])
        }
    }

    private mutating func addFeedForward(
        _ prefix: String, width: Int, activation: Activation, role: ParameterRole = .dense, expert: Int? = nil
    ) {
        let model = configuration.width
        if activation.inputsPerOutput == 2 {
            add("\(prefix).gate_proj.weight", [width, model], role: role, expert: expert)
        }
        add("\(prefix).up_proj.weight", [width, model], role: role, expert: expert)
        add("\(prefix).down_proj.weight", [model, width], role: role, expert: expert)
    }

    private mutating func addMixture(_ prefix: String, _ moe: MoEConfiguration) {
        if let nodes = moe.router.nodes {
            add("\(prefix).gate.nodes.weight", [nodes, configuration.width], role: .router)
        }
        if let cosine = moe.router.cosine {
            add("\(prefix).gate.projection.weight", [cosine.width, configuration.width], role: .router)
            add("\(prefix).gate.weight", [moe.experts, cosine.width], role: .router)
            add("\(prefix).gate.temperature", [1], role: .router)
        } else {
            add("\(prefix).gate.weight", [moe.experts, configuration.width], role: .router)
        }
        if moe.router.scoring == .sigmoid && moe.router.biasRate > 0 {
            add("\(prefix).gate.e_score_correction_bias", [moe.experts], role: .router)
        }
        for expert in 0..<moe.experts {
            addFeedForward(
                "\(prefix).experts.\(expert)", width: moe.width, activation: moe.activation, role: .expert,
                expert: expert)
        }
        if moe.sharedWidth > 0 {
            addFeedForward("\(prefix).shared_expert", width: moe.sharedWidth, activation: moe.activation)
            if moe.sharedCombination != .sum {
                add(
                    "\(prefix).coefficient.weight", [moe.sharedCombination.coefficients, configuration.width],
                    role: .router)
            }
        }
        if moe.isResidual {
            addFeedForward("\(prefix).residual_expert", width: moe.width, activation: moe.activation)
            add("\(prefix).coefficient.weight", [2, configuration.width], role: .router)
            add("\(prefix).coefficient.bias", [2], role: .router)
        }
    }
}
