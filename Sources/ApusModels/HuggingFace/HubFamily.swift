/// A family of Hugging Face models that Apus reads and writes; the raw value is its `model_type`.
public enum HubFamily: String, Sendable, CaseIterable {
    /// Mixtral: every layer a mixture, weights of the chosen experts always renormalised.
    case mixtral
    /// OLMoE: every layer a mixture, queries and keys normalised over the whole projection.
    case olmoe
    /// Qwen3-MoE: mixtures and dense layers, queries and keys normalised per head.
    case qwen3MoE = "qwen3_moe"
    /// DeepSeek-V2: latent attention, shared experts, softmax scores, perhaps of a few groups.
    case deepseekV2 = "deepseek_v2"
    /// DeepSeek-V3: latent attention, shared experts, sigmoid scores of a few groups, chosen with a bias.
    case deepseekV3 = "deepseek_v3"

    /// The name of the family for people.
    public var title: String {
        switch self {
        case .mixtral: "Mixtral"
        case .olmoe: "OLMoE"
        case .qwen3MoE: "Qwen3-MoE"
        case .deepseekV2: "DeepSeek-V2"
        case .deepseekV3: "DeepSeek-V3"
        }
    }

    /// The class that `architectures` names.
    public var architecture: String {
        switch self {
        case .mixtral: "MixtralForCausalLM"
        case .olmoe: "OlmoeForCausalLM"
        case .qwen3MoE: "Qwen3MoeForCausalLM"
        case .deepseekV2: "DeepseekV2ForCausalLM"
        case .deepseekV3: "DeepseekV3ForCausalLM"
        }
    }

    /// What transformers takes for keys that a file leaves out.
    struct Defaults {
        let theta: Double
        let epsilon: Float
        let balance: Float
        /// `nil` for as many as query heads.
        let keyValueHeads: Int?
    }

    var defaults: Defaults {
        switch self {
        case .mixtral: Defaults(theta: 1_000_000, epsilon: 1e-5, balance: 0.001, keyValueHeads: 8)
        case .olmoe: Defaults(theta: 10_000, epsilon: 1e-5, balance: 0.01, keyValueHeads: nil)
        case .qwen3MoE: Defaults(theta: 10_000, epsilon: 1e-6, balance: 0.001, keyValueHeads: 4)
        case .deepseekV2, .deepseekV3: Defaults(theta: 10_000, epsilon: 1e-6, balance: 0, keyValueHeads: nil)
        }
    }
}

/// Ids with a meaning of their own, as `config.json` names them.
public struct SpecialTokens: Sendable, Equatable {
    /// Beginning of a text.
    public var beginning: Int?
    /// Ends of a text; any of them stops generation.
    public var ends: [Int]
    /// Filler that no loss counts.
    public var padding: Int?

    /// Ids; none by default.
    public init(beginning: Int? = nil, ends: [Int] = [], padding: Int? = nil) {
        self.beginning = beginning
        self.ends = ends
        self.padding = padding
    }
}
