import ApusExperts
import ApusKernels
import ApusTensor
import Testing

@testable import ApusModels

@Suite struct HubConfigurationTests {
    @Test(arguments: [
        ("mixtral-8x7b", Fixture.mixtral, HubFamily.mixtral), ("olmoe-1b-7b", Fixture.olmoe, .olmoe),
        ("qwen3-30b-a3b", Fixture.qwen3, .qwen3MoE), ("deepseek-v3", .deepseekV3, .deepseekV3),
        ("deepseek-v2", .deepseekV2, .deepseekV2), ("deepseek-v2-lite", .deepseekV2Lite, .deepseekV2),
    ])
    func `public configurations are the presets`(name: String, fixture: Fixture, family: HubFamily) throws {
        let stored = try CheckpointConfiguration(json: fixture.text)
        #expect(stored.configuration == (try ModelConfiguration.preset(named: name)))
        #expect(stored.family == family)
        #expect(stored.dtype == "bfloat16")
    }

    @Test func `special ids are read`() throws {
        #expect(
            try CheckpointConfiguration(json: Fixture.mixtral.text).tokens == SpecialTokens(beginning: 1, ends: [2]))
        #expect(
            try CheckpointConfiguration(json: Fixture.olmoe.text).tokens == SpecialTokens(ends: [50_279], padding: 1))
        #expect(try CheckpointConfiguration(json: Fixture.smallQwen3.text).tokens == SpecialTokens(ends: [7, 9]))
    }

    @Test func `routing is the family's own`() throws {
        func moe(_ text: String) throws -> MoEConfiguration {
            try #require(CheckpointConfiguration(json: text).configuration.mixtures.first)
        }
        let mixtral = try moe(Fixture.mixtral.text)
        #expect(mixtral.router == RouterConfiguration(scoring: .softmaxThenTopK, renormalizes: true))
        #expect(mixtral.losses == RouterLosses(balance: 0.02, scope: .pooled))
        #expect(mixtral.policy == .dropless && mixtral.activation == .swiglu)
        #expect(try moe(Fixture.olmoe.text).router.renormalizes == false)
        #expect(try moe(Fixture.qwen3.text).router.renormalizes)
        // Mixtral's own code renormalises whatever this key says.
        let odd = Fixture.mixtral.text.replacing("\"use_cache\": true", with: "\"norm_topk_prob\": false")
        #expect(try moe(odd).router.renormalizes)
    }

    @Test func `layers, windows, ties and version 5 spelling of Qwen3-MoE`() throws {
        let stored = try CheckpointConfiguration(json: Fixture.smallQwen3.text)
        let model = stored.configuration
        #expect(stored.dtype == "float32")
        // Every second layer is a mixture, but layer 3 is named as dense.
        #expect(model.feedForward.indices.filter { model.moe(layer: $0) != nil } == [1, 5])
        #expect(model.feedForward[0] == .dense(width: 56) && model.feedForward[3] == .dense(width: 56))
        #expect(model.position == .rotary(theta: 5_000_000))
        #expect(model.slidingWindow == 32 && model.attentionBias && model.tiedEmbeddings)
        #expect(model.headWidth == 16 && model.queryKeyNorm == .head)
        #expect(model.mixtures[0].losses.balance == 0.001)
    }

    @Test func `heads' width and key heads fall back as transformers has it`() throws {
        let stored = try CheckpointConfiguration(json: Fixture.qwen3.text.replacing("\"head_dim\": 128,", with: ""))
        #expect(stored.configuration.headWidth == 64)
        let null = try CheckpointConfiguration(
            json: Fixture.mixtral.text.replacing("\"num_key_value_heads\": 8", with: "\"num_key_value_heads\": null"))
        #expect(null.configuration.keyValueHeads == 32)
        let absent = try CheckpointConfiguration(
            json: Fixture.olmoe.text.replacing("\"num_key_value_heads\": 16,", with: ""))
        #expect(absent.configuration.keyValueHeads == 16)
        let theta = try CheckpointConfiguration(
            json: Fixture.mixtral.text.replacing("\"rope_theta\": 1000000.0,", with: ""))
        #expect(theta.configuration.position == .rotary(theta: 1_000_000))
    }

    @Test(arguments: [
        (Fixture.mixtral, "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "'hidden_act' is 'gelu'"),
        (
            Fixture.mixtral, "\"rope_theta\": 1000000.0", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}",
            "'rope_scaling.type' is 'yarn'"
        ),
        (
            Fixture.mixtral, "\"rope_theta\": 1000000.0",
            "\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 1.0}",
            "'rope_parameters.rope_type' is 'llama3'"
        ),
        (
            Fixture.mixtral, "\"rope_theta\": 1000000.0",
            "\"rope_parameters\": {\"rope_type\": \"default\", \"factor\": 2}",
            "'rope_parameters.factor' is 2"
        ),
        (Fixture.mixtral, "\"use_cache\": true", "\"partial_rotary_factor\": 0.5", "'partial_rotary_factor' is 0.5"),
        (
            Fixture.mixtral, "\"use_cache\": true", "\"rope_parameters\": {\"rope_theta\": 5.0}",
            "'rope_theta' is 1000000.0; it must be the same"
        ),
        (
            Fixture.mixtral, "\"use_cache\": true", "\"num_experts\": 16",
            "'num_experts' is 16; it must be the same as 'num_local_experts'"
        ),
        (Fixture.mixtral, "\"use_cache\": true", "\"router_jitter_noise\": 0.1", "'router_jitter_noise' is 0.1"),
        (
            Fixture.mixtral, "\"use_cache\": true", "\"quantization_config\": {\"bits\": 4}",
            "'quantization_config' is an object"
        ),
        (Fixture.mixtral, "\"attention_dropout\": 0.0", "\"attention_dropout\": 0.1", "'attention_dropout' is 0.1"),
        (
            Fixture.mixtral, "MixtralForCausalLM", "MixtralForSequenceClassification",
            "'architectures' is 'MixtralForSequenceClassification'"
        ),
        (Fixture.mixtral, "\"vocab_size\": 32000", "\"dtype\": \"bfloat16\"", "has no key 'vocab_size'"),
        (
            Fixture.mixtral, "\"num_local_experts\": 8", "\"num_local_experts\": 0",
            "'num_local_experts' is 0; it must be a whole number from 1"
        ),
        (Fixture.mixtral, "\"num_attention_heads\": 32", "\"num_attention_heads\": 0", "'num_attention_heads' is 0"),
        (
            Fixture.mixtral, "\"num_hidden_layers\": 32", "\"num_hidden_layers\": 999999999999",
            "'num_hidden_layers' is 999999999999"
        ),
        (Fixture.mixtral, "\"hidden_size\": 4096", "\"hidden_size\": 4096.0", "'hidden_size' is 4096.0"),
        (Fixture.mixtral, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0", "'tie_word_embeddings' is 0"),
        (Fixture.olmoe, "\"use_cache\": true", "\"head_dim\": 64", "'head_dim' is 64"),
        (Fixture.olmoe, "\"use_cache\": true", "\"sliding_window\": 128", "'sliding_window' is 128"),
        (Fixture.qwen3, "\"use_sliding_window\": false", "\"use_sliding_window\": true", "'max_window_layers' is 48"),
        (
            Fixture.qwen3, "\"mlp_only_layers\": []", "\"mlp_only_layers\": 3",
            "'mlp_only_layers' is 3; it must be a list"
        ),
        (Fixture.qwen3, "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 0", "'decoder_sparse_step' is 0"),
        (Fixture.qwen3, "\"eos_token_id\": 151645", "\"eos_token_id\": \"x\"", "'eos_token_id' is 'x'"),
        (Fixture.deepseekV3, "\"noaux_tc\"", "\"greedy\"", "'topk_method' is 'greedy'"),
        (Fixture.deepseekV3, "\"sigmoid\"", "\"softmax\"", "'scoring_func' is 'softmax'"),
        (Fixture.deepseekV3, "\"moe_layer_freq\": 1", "\"moe_layer_freq\": 2", "'moe_layer_freq' is 2"),
        (Fixture.deepseekV3, "\"attention_bias\": false", "\"attention_bias\": true", "'attention_bias' is true"),
        (
            Fixture.deepseekV3, "\"num_key_value_heads\": 128", "\"num_key_value_heads\": 8",
            "'num_key_value_heads' is 8"
        ),
        (Fixture.deepseekV3, "\"n_shared_experts\": 1", "\"n_shared_experts\": 0", "'n_shared_experts' is 0"),
        // Widths whose sums and products would not be numbers.
        (
            Fixture.deepseekV3, "\"n_shared_experts\": 1", "\"n_shared_experts\": 4611686018427387904",
            "'n_shared_experts' is 4611686018427387904"
        ),
        (
            Fixture.deepseekV3, "\"qk_nope_head_dim\": 128", "\"qk_nope_head_dim\": 9223372036854775807",
            "'qk_nope_head_dim' is 9223372036854775807"
        ),
        (Fixture.deepseekV3, "\"type\": \"yarn\"", "\"type\": \"dynamic\"", "'rope_scaling.type' is 'dynamic'"),
        (
            Fixture.deepseekV3, "\"type\": \"yarn\"", "\"type\": \"yarn\", \"attention_factor\": 2.0",
            "'rope_scaling.attention_factor' is 2.0"
        ),
        (
            Fixture.deepseekV3, "\"type\": \"yarn\"", "\"type\": \"yarn\", \"rope_theta\": 5.0",
            "'rope_theta' is 10000.0; it must be the same as 'rope_scaling.rope_theta', 5.0"
        ),
        (Fixture.deepseekV2, "\"norm_topk_prob\": false", "\"norm_topk_prob\": true", "'norm_topk_prob' is true"),
        (Fixture.deepseekV2, "\"group_limited_greedy\"", "\"noaux_tc\"", "'topk_method' is 'noaux_tc'"),
    ])
    func `what Apus does not compute is refused by name`(fixture: Fixture, good: String, bad: String, message: String) {
        let text = fixture.text
        #expect(text.contains(good))
        let error = #expect(throws: ModelConfigurationError.self) {
            try CheckpointConfiguration(json: text.replacing(good, with: bad))
        }
        #expect(error.map(String.init(describing:))?.contains(message) == true, "\(String(describing: error))")
    }

    @Test(arguments: [
        Fixture.mixtral, .olmoe, .qwen3, .smallQwen3, .deepseekV3, .deepseekV2, .deepseekV2Lite,
    ])
    func `what is written reads back`(fixture: Fixture) throws {
        let stored = try CheckpointConfiguration(json: fixture.text)
        let family = try #require(stored.family)
        let written = try family.json(stored.configuration, dtype: .bf16, tokens: stored.tokens)
        let again = try CheckpointConfiguration(json: written)
        #expect(again.configuration == stored.configuration)
        #expect(again.tokens == stored.tokens && again.family == family && again.dtype == "bfloat16")
        #expect(family.canExpress(stored.configuration))
        #expect(written.contains("\"architectures\": [\"\(family.architecture)\"]"))
        #expect(throws: ModelConfigurationError.self) { try family.json(stored.configuration, dtype: .i32) }
    }
}
