import ApusExperts
import ApusKernels
import ApusNN
import Testing

@testable import ApusModels

@Suite struct InventoryTests {
    @Test func `names and shapes of a small model`() {
        let moe = MoEConfiguration(experts: 2, choices: 1, width: 6, sharedWidth: 3)
        let model = ModelConfiguration(
            vocabulary: 10, width: 8, heads: 2, keyValueHeads: 1, maximumPositions: 12, queryKeyNorm: .projection,
            feedForward: [.dense(width: 5), .moe(moe)])
        let attention: [(String, [Int])] = [
            ("input_layernorm.weight", [8]), ("self_attn.q_proj.weight", [8, 8]), ("self_attn.k_proj.weight", [4, 8]),
            ("self_attn.v_proj.weight", [4, 8]), ("self_attn.o_proj.weight", [8, 8]), ("self_attn.q_norm.weight", [8]),
            ("self_attn.k_norm.weight", [4]), ("post_attention_layernorm.weight", [8]),
        ]
        let dense: [(String, [Int])] = [
            ("mlp.gate_proj.weight", [5, 8]), ("mlp.up_proj.weight", [5, 8]), ("mlp.down_proj.weight", [8, 5]),
        ]
        let mixture: [(String, [Int])] = [
            ("mlp.gate.weight", [2, 8]), ("mlp.experts.0.gate_proj.weight", [6, 8]),
            ("mlp.experts.0.up_proj.weight", [6, 8]), ("mlp.experts.0.down_proj.weight", [8, 6]),
            ("mlp.experts.1.gate_proj.weight", [6, 8]), ("mlp.experts.1.up_proj.weight", [6, 8]),
            ("mlp.experts.1.down_proj.weight", [8, 6]), ("mlp.shared_expert.gate_proj.weight", [3, 8]),
            ("mlp.shared_expert.up_proj.weight", [3, 8]), ("mlp.shared_expert.down_proj.weight", [8, 3]),
        ]
        var expected: [(String, [Int])] = [("model.embed_tokens.weight", [10, 8])]
        expected += (attention + dense).map { ("model.layers.0.\($0.0)", $0.1) }
        expected += (attention + mixture).map { ("model.layers.1.\($0.0)", $0.1) }
        expected += [("model.norm.weight", [8]), ("lm_head.weight", [10, 8])]

        let inventory = model.parameterInventory()
        #expect(inventory.map(\.name) == expected.map(\.0))
        #expect(inventory.map(\.shape) == expected.map(\.1))
        let up = inventory.first { $0.name == "model.layers.1.mlp.experts.1.up_proj.weight" }
        #expect(up?.role == .expert && up?.layer == 1 && up?.expert == 1)
        #expect(inventory.filter { $0.role == .router }.map(\.name) == ["model.layers.1.mlp.gate.weight"])
        #expect(inventory.last?.layer == nil)
    }

    @Test func `biases, learned positions and residual experts have names`() {
        let moe = MoEConfiguration(
            experts: 1, choices: 1, width: 6, activation: .gelu,
            router: RouterConfiguration(scoring: .sigmoid, biasRate: 0.01),
            isResidual: true)
        let model = ModelConfiguration(
            vocabulary: 10, width: 8, heads: 2, maximumPositions: 12, norm: .layer, position: .learned,
            attentionBias: true, feedForward: [.moe(moe)], tiedEmbeddings: true)
        #expect(
            model.parameterInventory().map(\.name) == [
                "model.embed_tokens.weight", "model.embed_positions.weight",
                "model.layers.0.input_layernorm.weight", "model.layers.0.input_layernorm.bias",
                "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias",
                "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.k_proj.bias",
                "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.v_proj.bias",
                "model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.o_proj.bias",
                "model.layers.0.post_attention_layernorm.weight", "model.layers.0.post_attention_layernorm.bias",
                "model.layers.0.mlp.gate.weight", "model.layers.0.mlp.gate.e_score_correction_bias",
                "model.layers.0.mlp.experts.0.up_proj.weight", "model.layers.0.mlp.experts.0.down_proj.weight",
                "model.layers.0.mlp.residual_expert.up_proj.weight",
                "model.layers.0.mlp.residual_expert.down_proj.weight",
                "model.layers.0.mlp.coefficient.weight", "model.layers.0.mlp.coefficient.bias",
                "model.norm.weight", "model.norm.bias",
            ])
    }

    @Test(arguments: ModelConfiguration.presetNames)
    func `every preset is possible and reads back from its text`(name: String) throws {
        let model = try ModelConfiguration.preset(named: name)
        try model.checkSizes()
        #expect(try ModelConfiguration(json: model.json()) == model)
    }

    @Test func `names of presets are told apart`() throws {
        #expect(Set(ModelConfiguration.presetNames).count == ModelConfiguration.presetNames.count)
        #expect(throws: ModelConfigurationError.unknownPreset(name: "mixtral-8x7", nearest: "mixtral-8x7b")) {
            try ModelConfiguration.preset(named: "mixtral-8x7")
        }
        #expect(throws: ModelConfigurationError.unknownPreset(name: "ted-350m-4", nearest: nil)) {
            try ModelConfiguration.preset(named: "ted-350m-4")
        }
        #expect(
            try ModelConfiguration.preset(named: "ted-6.7b-48").mixtures.map(\.experts)
                == Array(repeating: 48, count: 16))
        #expect(throws: ModelConfigurationError.self) { try ModelConfiguration.preset(named: "ted-6.7b-0") }
        #expect(throws: ModelConfigurationError.self) { try ModelConfiguration.preset(named: "ted-6.7b--3") }
        #expect(throws: ModelConfigurationError.self) { try ModelConfiguration.preset(named: "") }
    }

    @Test func `the pyramid widens at the top`() throws {
        let experts = try ModelConfiguration.preset(named: "deepspeed-pr-moe-350m").mixtures.map(\.experts)
        #expect(experts == Array(repeating: 32, count: 10) + [64, 64])
        let student = try ModelConfiguration.preset(named: "deepspeed-mos-1.3b").mixtures.map(\.experts)
        #expect(student == Array(repeating: 64, count: 8) + [128, 128])
    }
}
