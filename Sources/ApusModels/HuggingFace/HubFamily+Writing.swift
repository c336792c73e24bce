import ApusExperts
import ApusKernels
public import ApusTensor

extension HubFamily {
    /// The `config.json` with which transformers, version 4 or 5, loads `configuration` as a model of this family.
    ///
    /// - Parameters:
    ///   - dtype: the format of the weights beside it: `f32` or `bf16`.
    ///   - tokens: special ids to name.
    /// - Throws: what ``check(_:)`` throws, or `impossible` for a dtype that is no format of weights.
    public func json(
        _ configuration: ModelConfiguration, dtype: DType, tokens: SpecialTokens = SpecialTokens()
    ) throws(ModelConfigurationError) -> String {
        try check(configuration)
        let dtypeName: String
        switch dtype {
        case .f32: dtypeName = "float32"
        case .bf16: dtypeName = "bfloat16"
        default: throw .impossible(key: "dtype", found: "\(dtype)", reason: "weights are written as f32 or bf16")
        }
        guard case .rotary(let theta) = configuration.position else {
            throw .notExpressible(family: self, key: "position", found: "'learned'", others: [])
        }
        var fields: [String: JSONValue] = [
            "architectures": .array([.string(architecture)]),
            "model_type": .string(rawValue),
            "dtype": .string(dtypeName),
            "torch_dtype": .string(dtypeName),
            "vocab_size": .integer(configuration.vocabulary),
            "hidden_size": .integer(configuration.width),
            "num_hidden_layers": .integer(configuration.layers),
            "num_attention_heads": .integer(configuration.heads),
            "num_key_value_heads": .integer(configuration.keyValueHeads),
            "hidden_act": .string("silu"),
            "max_position_embeddings": .integer(configuration.maximumPositions),
            "rms_norm_eps": .float(configuration.normEpsilon),
            "rope_theta": .number(theta),
            "rope_parameters": .object(["rope_theta": .number(theta), "rope_type": .string("default")]),
            "attention_dropout": .number(0),
            "initializer_range": .float(configuration.initialDeviation),
            "tie_word_embeddings": .bool(configuration.tiedEmbeddings),
            "output_router_logits": .bool(false),
            "use_cache": .bool(true),
            "bos_token_id": .optional(tokens.beginning) { .integer($0) },
            "eos_token_id": tokens.endsValue,
            "pad_token_id": .optional(tokens.padding) { .integer($0) },
        ]
        fields.merge(own(configuration)) { _, own in own }
        return JSONValue.object(fields).text
    }

    /// The keys in which families differ.
    private func own(_ configuration: ModelConfiguration) -> [String: JSONValue] {
        let moe = configuration.mixtures.first ?? MoEConfiguration(experts: 0, choices: 1, width: 1)
        let renormalizes = moe.router.renormalizes || moe.router.scoring == .topKThenSoftmax
        let window: JSONValue = .optional(configuration.slidingWindow) { .integer($0) }
        var fields: [String: JSONValue] = ["num_experts_per_tok": .integer(moe.choices)]
        if let latent = configuration.latent {
            return fields.merging(deepSeekFields(configuration, latent)) { _, own in own }
        }
        fields["router_aux_loss_coef"] = .float(Self.balanceCoefficient(configuration))
        switch self {
        case .deepseekV2, .deepseekV3: break
        case .mixtral:
            fields["intermediate_size"] = .integer(moe.width)
            fields["num_local_experts"] = .integer(moe.experts)
            fields["head_dim"] = .integer(configuration.headWidth)
            fields["sliding_window"] = window
            fields["router_jitter_noise"] = .number(0)
        case .olmoe:
            fields["intermediate_size"] = .integer(moe.width)
            fields["num_experts"] = .integer(moe.experts)
            fields["attention_bias"] = .bool(configuration.attentionBias)
            fields["clip_qkv"] = .optional(configuration.attentionClip) { .float($0) }
            fields["norm_topk_prob"] = .bool(renormalizes)
        case .qwen3MoE:
            let dense = configuration.feedForward.enumerated().compactMap { layer, part -> (Int, Int)? in
                if case .dense(let width) = part { (layer, width) } else { nil }
            }
            // Without dense layers the width is read by nothing, but has to be there.
            fields["intermediate_size"] = .integer(dense.first?.1 ?? moe.choices * moe.width)
            fields["mlp_only_layers"] = .array(dense.map { .integer($0.0) })
            fields["decoder_sparse_step"] = .integer(1)
            fields["moe_intermediate_size"] = .integer(moe.width)
            fields["num_experts"] = .integer(moe.experts)
            fields["head_dim"] = .integer(configuration.headWidth)
            fields["attention_bias"] = .bool(configuration.attentionBias)
            fields["norm_topk_prob"] = .bool(renormalizes)
            fields["use_sliding_window"] = .bool(configuration.slidingWindow != nil)
            fields["sliding_window"] = window
        }
        return fields
    }
}

extension SpecialTokens {
    fileprivate var endsValue: JSONValue {
        switch ends.count {
        case 0: .null
        case 1: .integer(ends[0])
        default: .array(ends.map { .integer($0) })
        }
    }
}
