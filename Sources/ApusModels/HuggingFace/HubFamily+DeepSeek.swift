import ApusExperts
import ApusKernels
import ApusTensor

// Shape letters: E experts, F expert width.

extension HubFamily {
    /// Whether the family has latent attention and shared experts.
    var isDeepSeek: Bool { self == .deepseekV2 || self == .deepseekV3 }

    /// How much the selection bias of a model that is read moves in each step, where it is trained on: what DeepSeek-V3 was
    /// trained with (section 4.2). The files do not say.
    static let deepSeekBiasRate: Float = 0.001

    /// What sums and products of widths are formed of before the model's sizes are checked; those do not overflow.
    private static let widest = 1 << 30

    /// The model that DeepSeek's `config.json` describes.
    ///
    /// V2: softmax over all experts, the K highest of all or of the groups whose best expert is highest. V3: sigmoid, a bias
    /// that enters the choice alone, groups by their two best. Both multiply the weights by `routed_scaling_factor`, and add
    /// `n_shared_experts` experts as one. The layers that predict further tokens (`num_nextn_predict_layers`) are no part of
    /// it.
    func deepSeekConfiguration(_ fields: JSONFields) throws(ModelConfigurationError) -> ModelConfiguration {
        try refuseOtherRouting(fields)
        let heads = try fields.integer("num_attention_heads", from: 1)
        let keyValueHeads = try fields.integer("num_key_value_heads", default: heads, from: 1)
        if keyValueHeads != heads {
            throw fields.unsupported(
                "num_key_value_heads", .integer(keyValueHeads),
                "latent attention makes a key and a value for each head: set it to \(heads)")
        }
        let rope = try rotary(fields)
        let configuration = try ModelConfiguration(
            vocabulary: fields.integer("vocab_size", from: 1), width: fields.integer("hidden_size", from: 1),
            heads: heads, maximumPositions: fields.integer("max_position_embeddings", from: 1), norm: .rms,
            normEpsilon: fields.float("rms_norm_eps", default: defaults.epsilon), position: .rotary(theta: rope.theta),
            activation: .swiglu, feedForward: deepSeekFeedForward(fields),
            tiedEmbeddings: fields.bool("tie_word_embeddings", default: false),
            initialDeviation: fields.float("initializer_range", default: 0.02), latent: latent(fields),
            yarn: rope.yarn)
        try configuration.checkSizes()
        return configuration
    }

    private func latent(_ fields: JSONFields) throws(ModelConfigurationError) -> LatentConfiguration {
        // Null says that there is no compression of queries; an absent key, the default of transformers.
        let isNull = fields.values["q_lora_rank"] == .null
        let isInterleaved = try self == .deepseekV2 ? true : fields.bool("rope_interleave", default: true)
        return try LatentConfiguration(
            queryRank: isNull ? nil : fields.integer("q_lora_rank", default: 1536, from: 1),
            keyValueRank: fields.integer("kv_lora_rank", default: 512, from: 1),
            plainWidth: fields.integer("qk_nope_head_dim", default: 128, from: 1, to: Self.widest),
            rotaryWidth: fields.integer("qk_rope_head_dim", default: 64, from: 1, to: Self.widest),
            valueWidth: fields.integer("v_head_dim", default: 128, from: 1, to: Self.widest),
            pairing: isInterleaved ? .neighbours : .halves)
    }

    private func deepSeekFeedForward(
        _ fields: JSONFields
    ) throws(ModelConfigurationError) -> [ModelConfiguration.FeedForward] {
        let layers = try layerCount(fields)
        let width = try fields.integer("moe_intermediate_size", from: 1, to: Self.widest)
        let shared = try fields.integer(
            "n_shared_experts", default: self == .deepseekV2 ? 2 : 1, from: 1, to: Self.widest)
        // The paper's loss is formed over each sequence, and transformers has none.
        let balance = try fields.float("aux_loss_alpha", default: 0)
        let moe = try MoEConfiguration(
            experts: fields.integer("n_routed_experts", "num_local_experts", "num_experts", from: 1),
            choices: fields.integer("num_experts_per_tok", from: 1), width: width, activation: .swiglu,
            router: RouterConfiguration(
                scoring: self == .deepseekV3 ? .sigmoid : .softmaxThenTopK,
                renormalizes: fields.bool("norm_topk_prob", default: self == .deepseekV3),
                weightScale: fields.float("routed_scaling_factor", default: self == .deepseekV3 ? 2.5 : 1),
                biasRate: self == .deepseekV3 ? Self.deepSeekBiasRate : 0, groupLimit: groupLimit(fields)),
            losses: RouterLosses(balance: balance, scope: .layer), sharedWidth: shared * width)
        let dense = try fields.integer("first_k_dense_replace", default: self == .deepseekV3 ? 3 : 0)
        let denseWidth = dense > 0 ? try fields.integer("intermediate_size", from: 1) : 0
        return (0..<layers).map { $0 < dense ? .dense(width: denseWidth) : .moe(moe) }
    }

    private func groupLimit(_ fields: JSONFields) throws(ModelConfigurationError) -> GroupLimit? {
        if self == .deepseekV2, fields.value("topk_method") != .string("group_limited_greedy") { return nil }
        let isV3 = self == .deepseekV3
        let groups = try fields.integer("n_group", default: isV3 ? 8 : nil, from: 1)
        let chosen = try fields.integer("topk_group", default: isV3 ? 4 : nil, from: 1)
        // All groups are no limit.
        return chosen >= groups ? nil : GroupLimit(groups: groups, chosen: chosen, score: isV3 ? .bestTwo : .best)
    }

    /// Refuses, by name, routing and projections that are not this family's.
    private func refuseOtherRouting(_ fields: JSONFields) throws(ModelConfigurationError) {
        let methods = self == .deepseekV3 ? ["noaux_tc"] : ["greedy", "group_limited_greedy"]
        let expected: [(key: String, values: [JSONValue], reason: String)] = [
            (
                "topk_method", methods.map { .string($0) },
                "experts of this family are chosen by \(methods.map(quoted).joined(separator: " or "))"
            ),
            (
                "scoring_func", [.string(self == .deepseekV3 ? "sigmoid" : "softmax")],
                "the scores of this family are \(self == .deepseekV3 ? "sigmoids" : "a softmax")"
            ),
            ("moe_layer_freq", [.integer(1)], "behind the dense layers every one is a mixture: only 1 is read"),
            (
                "attention_bias", [.bool(false)],
                "the projections of latent attention have no biases in Apus: only false is read"
            ),
            ("mlp_bias", [.bool(false)], "feed-forward layers have no biases in Apus: only false is read"),
        ]
        for rule in expected {
            if let value = fields.value(rule.key), !rule.values.contains(value) {
                throw fields.unsupported(rule.key, value, rule.reason)
            }
        }
        if self == .deepseekV2, let value = fields.value("norm_topk_prob"), value != .bool(false) {
            throw fields.unsupported(
                "norm_topk_prob", value,
                "transformers passes it over for DeepSeek-V2 and DeepSeek's own code does not; only false, which both "
                    + "compute alike, is read")
        }
    }
}

// MARK: Rotary positions

extension HubFamily {
    /// Base and stretch of the rotary positions, in either spelling: `rope_parameters`, or `rope_theta` and `rope_scaling`.
    private func rotary(
        _ fields: JSONFields
    ) throws(ModelConfigurationError) -> (theta: Double, yarn: YarnConfiguration?) {
        for key in ["rope_parameters", "rope_scaling"] where fields.value(key) != nil {
            let rope = try fields.object(key)
            let type = try rope.value(anyOf: ["rope_type", "type"])
            guard type?.value == .string("yarn") else { continue }
            let outer = fields.value("rope_theta") == nil ? nil : try fields.number("rope_theta")
            let theta = try rope.number("rope_theta", default: outer ?? defaults.theta)
            if let outer, outer != theta {
                throw fields.wrong("rope_theta", .number(outer), "the same as '\(key).rope_theta', \(theta)")
            }
            return (theta, try yarn(rope))
        }
        return (try rotaryTheta(fields), nil)
    }

    private func yarn(_ rope: JSONFields) throws(ModelConfigurationError) -> YarnConfiguration {
        let known = [
            "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow",
            "mscale", "mscale_all_dim",
        ]
        for (key, value) in rope.values.sorted(by: { $0.key < $1.key }) where !known.contains(key) {
            let isNeutral = value == .null || key == "truncate" && value == .bool(true)
            if !isNeutral {
                throw rope.unsupported(
                    key, value, "Apus stretches positions by \(known[3...].joined(separator: ", ")) alone")
            }
        }
        return try YarnConfiguration(
            factor: rope.number("factor"),
            originalPositions: rope.integer("original_max_position_embeddings", from: 1),
            betaFast: rope.number("beta_fast", default: 32), betaSlow: rope.number("beta_slow", default: 1),
            mscale: rope.number("mscale", default: 0), mscaleAll: rope.number("mscale_all_dim", default: 0))
    }
}

// MARK: Writing

extension HubFamily {
    /// The keys of DeepSeek's `config.json` that other families have not, or say otherwise.
    func deepSeekFields(_ configuration: ModelConfiguration, _ latent: LatentConfiguration) -> [String: JSONValue] {
        let moe = configuration.mixtures.first ?? MoEConfiguration(experts: 1, choices: 1, width: 1)
        let dense = configuration.feedForward.prefix { if case .dense = $0 { true } else { false } }
        var denseWidth = moe.choices * moe.width
        if case .dense(let width)? = dense.first { denseWidth = width }
        let isV3 = self == .deepseekV3
        let limit = moe.router.groupLimit
        var fields: [String: JSONValue] = [
            "intermediate_size": .integer(denseWidth), "moe_intermediate_size": .integer(moe.width),
            "first_k_dense_replace": .integer(dense.count), "moe_layer_freq": .integer(1),
            "n_routed_experts": .integer(moe.experts), "n_shared_experts": .integer(moe.sharedWidth / moe.width),
            "routed_scaling_factor": .float(moe.router.weightScale), "norm_topk_prob": .bool(moe.router.renormalizes),
            "scoring_func": .string(isV3 ? "sigmoid" : "softmax"),
            "topk_method": .string(isV3 ? "noaux_tc" : limit == nil ? "greedy" : "group_limited_greedy"),
            "n_group": .integer(limit?.groups ?? 1), "topk_group": .integer(limit?.chosen ?? 1),
            "q_lora_rank": .optional(latent.queryRank) { .integer($0) },
            "kv_lora_rank": .integer(latent.keyValueRank), "qk_nope_head_dim": .integer(latent.plainWidth),
            "qk_rope_head_dim": .integer(latent.rotaryWidth), "v_head_dim": .integer(latent.valueWidth),
            "attention_bias": .bool(false), "num_nextn_predict_layers": .integer(0),
            "aux_loss_alpha": .float(moe.losses.scope == .layer ? moe.losses.balance : 0), "seq_aux": .bool(true),
        ]
        if isV3 { fields["rope_interleave"] = .bool(latent.pairing == .neighbours) }
        if let yarn = configuration.yarn, let theta = configuration.rotaryTheta {
            let scaling = yarn.hubFields
            fields["rope_scaling"] = .object(scaling.merging(["type": .string("yarn")]) { $1 })
            fields["rope_parameters"] = .object(
                scaling.merging(["rope_type": .string("yarn"), "rope_theta": .number(theta)]) { $1 })
        }
        return fields
    }
}

extension YarnConfiguration {
    /// Without what is 0, which transformers takes for absent too.
    fileprivate var hubFields: [String: JSONValue] {
        var fields: [String: JSONValue] = [
            "factor": .number(factor), "original_max_position_embeddings": .integer(originalPositions),
            "beta_fast": .number(betaFast), "beta_slow": .number(betaSlow),
        ]
        if mscale != 0 { fields["mscale"] = .number(mscale) }
        if mscaleAll != 0 { fields["mscale_all_dim"] = .number(mscaleAll) }
        return fields
    }
}
