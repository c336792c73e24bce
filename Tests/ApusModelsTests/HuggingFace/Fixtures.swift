import Testing

/// The facts of public configurations, in the spelling of the files.
struct Fixture: Sendable, CustomTestStringConvertible {
    let name: String
    let text: String

    var testDescription: String { name }

    /// Mixtral-8x7B-v0.1 as version 4 of transformers spells it.
    static let mixtral = Fixture(
        name: "mixtral",
        text: """
            {"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
             "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
             "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
             "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
             "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
             "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false,
             "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000}
            """)

    /// OLMoE-1B-7B-0924.
    static let olmoe = Fixture(
        name: "olmoe",
        text: """
            {"architectures": ["OlmoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "clip_qkv": null,
             "eos_token_id": 50279, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
             "intermediate_size": 1024, "max_position_embeddings": 4096, "model_type": "olmoe", "norm_topk_prob": false,
             "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
             "num_key_value_heads": 16, "output_router_logits": false, "pad_token_id": 1, "rms_norm_eps": 1e-05,
             "rope_scaling": null, "rope_theta": 10000.0, "router_aux_loss_coef": 0.01, "tie_word_embeddings": false,
             "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 50304}
            """)

    /// Qwen3-30B-A3B.
    static let qwen3 = Fixture(
        name: "qwen3",
        text: """
            {"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
             "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
             "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144,
             "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
             "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32,
             "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
             "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
             "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
             "torch_dtype": "bfloat16",
             "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}
            """)

    /// A small Qwen3-MoE as version 5 spells it, with every layer of the kinds there are.
    static let smallQwen3 = Fixture(
        name: "smallQwen3",
        text: """
            {"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": true, "decoder_sparse_step": 2,
             "dtype": "float32", "eos_token_id": [7, 9], "head_dim": 16, "hidden_act": "silu", "hidden_size": 48,
             "intermediate_size": 56, "max_position_embeddings": 64, "mlp_only_layers": [3], "model_type": "qwen3_moe",
             "moe_intermediate_size": 20, "norm_topk_prob": false, "num_attention_heads": 4, "num_experts_per_tok": 2,
             "num_hidden_layers": 6, "num_key_value_heads": 2, "num_local_experts": 6, "pad_token_id": null,
             "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 5000000.0, "rope_type": "default"},
             "sliding_window": 32, "tie_word_embeddings": true, "use_sliding_window": true, "vocab_size": 96}
            """)
}
