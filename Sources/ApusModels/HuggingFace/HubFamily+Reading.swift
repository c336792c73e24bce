import ApusExperts
import ApusKernels
import ApusTensor

extension HubFamily {
    /// The model that a family's `config.json` describes.
    ///
    /// Routing as the family computes it: softmax over all experts, the K highest, renormalised always (Mixtral) or
    /// where `norm_topk_prob` says so; the balance loss pooled over layers, with `router_aux_loss_coef`.
    func configuration(_ fields: JSONFields) throws(ModelConfigurationError) -> ModelConfiguration {
        try refuseWhatChangesNumbers(fields)
        if isDeepSeek { return try deepSeekConfiguration(fields) }
        let width = try fields.integer("hidden_size", from: 1)
        let heads = try fields.integer("num_attention_heads", from: 1)
        let headWidth = try fields.integer("head_dim", default: width / heads, from: 1)
        if self == .olmoe, headWidth * heads != width {
            throw fields.unsupported(
                "head_dim", .integer(headWidth), "OLMoE normalises whole projections, so heads must fill the width")
        }
        let configuration = try ModelConfiguration(
            vocabulary: fields.integer("vocab_size", from: 1), width: width, heads: heads,
            keyValueHeads: keyValueHeads(fields, heads: heads), headWidth: headWidth,
            maximumPositions: fields.integer("max_position_embeddings", from: 1), norm: .rms,
            normEpsilon: fields.float("rms_norm_eps", default: defaults.epsilon),
            position: .rotary(theta: rotaryTheta(fields)), queryKeyNorm: queryKeyNorm,
            attentionBias: self == .mixtral ? false : fields.bool("attention_bias", default: false),
            attentionClip: self == .olmoe ? fields.optionalFloat("clip_qkv") : nil,
            slidingWindow: slidingWindow(fields), activation: .swiglu, feedForward: feedForward(fields),
            tiedEmbeddings: fields.bool("tie_word_embeddings", default: false),
            initialDeviation: fields.float("initializer_range", default: 0.02))
        try configuration.checkSizes()
        return configuration
    }

    var queryKeyNorm: ModelConfiguration.QueryKeyNorm {
        switch self {
        case .mixtral, .deepseekV2, .deepseekV3: .none
        case .olmoe: .projection
        case .qwen3MoE: .head
        }
    }

    private func keyValueHeads(_ fields: JSONFields, heads: Int) throws(ModelConfigurationError) -> Int {
        // Null means as many as query heads, which is not what an absent key means.
        let isNull = fields.values["num_key_value_heads"] == .null
        return try fields.integer(
            "num_key_value_heads", default: isNull ? heads : defaults.keyValueHeads ?? heads, from: 1)
    }

    private func slidingWindow(_ fields: JSONFields) throws(ModelConfigurationError) -> Int? {
        switch self {
        case .mixtral: return try fields.optionalInteger("sliding_window", from: 1)
        case .deepseekV2, .deepseekV3: return nil
        case .olmoe:
            if let window = fields.value("sliding_window") {
                throw fields.unsupported(
                    "sliding_window", window, "OLMoE obeys it in some attention kernels only; set it to null")
            }
            return nil
        case .qwen3MoE:
            guard try fields.bool("use_sliding_window", default: false) else { return nil }
            if let layers = fields.value("max_window_layers"), layers != .integer(0) {
                throw fields.unsupported(
                    "max_window_layers", layers,
                    "Apus gives all layers the same window; set it to 0, or 'use_sliding_window' to false")
            }
            return try fields.integer("sliding_window", default: 4096, from: 1)
        }
    }

    private func feedForward(_ fields: JSONFields) throws(ModelConfigurationError) -> [ModelConfiguration.FeedForward] {
        let layers = try layerCount(fields)
        let experts = try expertCount(fields)
        let width = try fields.integer(self == .qwen3MoE ? "moe_intermediate_size" : "intermediate_size", from: 1)
        let choices = try fields.integer("num_experts_per_tok", from: 1)
        let balance = try fields.float("router_aux_loss_coef", default: defaults.balance)
        let renormalizes = self == .mixtral ? true : try fields.bool("norm_topk_prob", default: false)
        let moe = MoEConfiguration(
            experts: experts, choices: choices, width: width, activation: .swiglu,
            router: RouterConfiguration(scoring: .softmaxThenTopK, renormalizes: renormalizes),
            losses: RouterLosses(balance: balance, scope: .pooled))
        guard self == .qwen3MoE else { return Array(repeating: .moe(moe), count: layers) }

        let step = try fields.integer("decoder_sparse_step", default: 1, from: 1)
        let denseLayers = try fields.value("mlp_only_layers") == nil ? [] : fields.array("mlp_only_layers")
        let isDense = (0..<layers).map { layer in
            experts == 0 || (layer + 1) % step != 0 || denseLayers.contains(.integer(layer))
        }
        let denseWidth = isDense.contains(true) ? try fields.integer("intermediate_size", from: 1) : 0
        return isDense.map { $0 ? .dense(width: denseWidth) : .moe(moe) }
    }

    func layerCount(_ fields: JSONFields) throws(ModelConfigurationError) -> Int {
        let layers = try fields.integer("num_hidden_layers", from: 1)
        if layers > ModelConfiguration.mostTensors {
            throw fields.wrong("num_hidden_layers", .integer(layers), "at most \(ModelConfiguration.mostTensors)")
        }
        return layers
    }

    /// Only Qwen3-MoE can do without experts.
    private func expertCount(_ fields: JSONFields) throws(ModelConfigurationError) -> Int {
        let least = self == .qwen3MoE ? 0 : 1
        return switch self {
        case .mixtral: try fields.integer("num_local_experts", "num_experts", from: least)
        case .olmoe, .qwen3MoE, .deepseekV2, .deepseekV3:
            try fields.integer("num_experts", "num_local_experts", from: least)
        }
    }
}

extension HubFamily {
    func rotaryTheta(_ fields: JSONFields) throws(ModelConfigurationError) -> Double {
        for key in ["rope_parameters", "rope_scaling"] where fields.value(key) != nil {
            let rope = try fields.object(key)
            for typeKey in ["rope_type", "type"] {
                guard let type = rope.value(typeKey), type != .string("default") else { continue }
                throw rope.unsupported(typeKey, type, "Apus computes only the 'default' rotary positions")
            }
            for (name, value) in rope.values.sorted(by: { $0.key < $1.key }) {
                switch name {
                case "rope_type", "type", "rope_theta", "original_max_position_embeddings": continue
                case "partial_rotary_factor" where value.isOne: continue
                default:
                    throw rope.unsupported(name, value, "Apus computes only the 'default' rotary positions")
                }
            }
        }
        let outer = fields.value("rope_theta") == nil ? nil : try fields.number("rope_theta")
        guard fields.value("rope_parameters") != nil else { return outer ?? defaults.theta }
        let rope = try fields.object("rope_parameters")
        let inner = try rope.number("rope_theta", default: outer ?? defaults.theta)
        if let outer, outer != inner {
            throw fields.wrong("rope_theta", .number(outer), "the same as 'rope_parameters.rope_theta', \(inner)")
        }
        return inner
    }

    /// Refuses, by name, what would make the family's own code compute something else than Apus does.
    private func refuseWhatChangesNumbers(_ fields: JSONFields) throws(ModelConfigurationError) {
        if case .array(let classes)? = fields.value("architectures"), let first = classes.first,
            !classes.contains(.string(architecture))
        {
            throw fields.unsupported(
                "architectures", first, "only models with a language-model head are read: \(quoted(architecture))")
        }
        if let activation = fields.value("hidden_act"), ![.string("silu"), .string("swish")].contains(activation) {
            throw fields.unsupported("hidden_act", activation, "the experts of Apus' import are SwiGLU: 'silu'")
        }
        if let quantization = fields.value("quantization_config") {
            throw fields.unsupported(
                "quantization_config", quantization, "quantised weights are not read; convert them to bfloat16 first")
        }
        let neutral: [(key: String, isNeutral: (JSONValue) -> Bool, reason: String)] = [
            ("attention_dropout", \.isZero, "Apus has no dropout; set it to 0, which changes nothing in evaluation"),
            ("partial_rotary_factor", \.isOne, "Apus turns whole heads; only 1 is read"),
            ("is_encoder_decoder", { $0 == .bool(false) }, "only decoders are read"),
            ("add_cross_attention", { $0 == .bool(false) }, "only decoders are read"),
        ]
        for rule in neutral {
            if let value = fields.value(rule.key), !rule.isNeutral(value) {
                throw fields.unsupported(rule.key, value, rule.reason)
            }
        }
        if self == .mixtral, let jitter = fields.value("router_jitter_noise"), !jitter.isZero {
            throw fields.unsupported(
                "router_jitter_noise", jitter,
                "Mixtral scales what experts read as well, Apus only what the router reads; set it to 0, which changes "
                    + "nothing in evaluation")
        }
    }
}

extension JSONValue {
    fileprivate var isZero: Bool { self == .integer(0) || self == .number(0) }
    fileprivate var isOne: Bool { self == .integer(1) || self == .number(1) }
}
