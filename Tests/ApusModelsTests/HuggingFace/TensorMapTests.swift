import ApusExperts
import ApusKernels
import Testing

@testable import ApusModels

// Shape letters: D model width, F expert width, E experts.

@Suite struct TensorMapTests {
    static let moe = MoEConfiguration(experts: 3, choices: 2, width: 6)
    static let model = ModelConfiguration(
        vocabulary: 10, width: 8, heads: 2, maximumPositions: 12, feedForward: [.moe(moe), .moe(moe)])

    static func map(_ family: HubFamily?) -> HubTensorMap { HubTensorMap(family: family, configuration: model) }

    static func file(_ family: HubFamily?) -> [(name: String, shape: [Int])] {
        map(family).written.map { ($0.hubName, $0.hubShape) }
    }

    /// The same file with the experts of `layers` fused.
    static func fused(_ family: HubFamily, layers: [Int] = [0, 1], infix: String = "mlp") -> [(
        name: String, shape: [Int]
    )] {
        var tensors = file(family)
        for layer in layers {
            tensors.removeAll { $0.name.hasPrefix("model.layers.\(layer).") && $0.name.contains(".experts.") }
            tensors.append(("model.layers.\(layer).\(infix).experts.gate_up_proj", [3, 12, 8]))
            tensors.append(("model.layers.\(layer).\(infix).experts.down_proj", [3, 8, 6]))
        }
        return tensors
    }

    @Test func `Mixtral has words of its own`() {
        let map = Self.map(.mixtral)
        let pairs = [
            ("model.layers.1.mlp.gate.weight", "model.layers.1.block_sparse_moe.gate.weight"),
            ("model.layers.1.mlp.experts.2.gate_proj.weight", "model.layers.1.block_sparse_moe.experts.2.w1.weight"),
            ("model.layers.1.mlp.experts.2.up_proj.weight", "model.layers.1.block_sparse_moe.experts.2.w3.weight"),
            ("model.layers.1.mlp.experts.2.down_proj.weight", "model.layers.1.block_sparse_moe.experts.2.w2.weight"),
            ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ]
        for (name, hub) in pairs {
            #expect(map.hubName(name) == hub)
            #expect(map.name(hub: hub) == name)
        }
        #expect(map.name(hub: "model.layers.1.mlp.gate.weight") == nil)
        #expect(map.name(hub: "model.layers.1.block_sparse_moe.experts.2.up_proj.weight") == nil)
        #expect(map.name(hub: "model.layers.1.block_sparse_moe.experts.3.w1.weight") == nil)
        #expect(map.name(hub: "model.layers.7.input_layernorm.weight") == nil)
        #expect(map.name(hub: "") == nil)
    }

    @Test(arguments: [HubFamily?.none, .mixtral, .olmoe, .qwen3MoE])
    func `names go over and back, and every tensor has its place`(family: HubFamily?) throws {
        let map = Self.map(family)
        for parameter in Self.model.parameterInventory() {
            #expect(map.name(hub: map.hubName(parameter.name)) == parameter.name)
        }
        let placements = try map.placements(of: Self.file(family).reversed())
        #expect(placements == map.written)
        #expect(placements.flatMap(\.slices).map(\.name) == Self.model.parameterInventory().map(\.name))
    }

    @Test(arguments: [HubFamily.mixtral, .olmoe, .qwen3MoE])
    func `fused experts are cut`(family: HubFamily) throws {
        let map = Self.map(family)
        let placements = try map.placements(of: Self.fused(family, layers: [1]))
        let slices = placements.flatMap(\.slices)
        #expect(Set(slices.map(\.name)) == Set(Self.model.parameterInventory().map(\.name)))
        #expect(slices.count == Self.model.parameterInventory().count)

        let gateUp = try #require(placements.first { $0.hubName == "model.layers.1.mlp.experts.gate_up_proj" })
        #expect(gateUp.hubShape == [3, 12, 8] && gateUp.slices.count > 1)
        // Expert 1: rows 12..<18 of 36 are gate, 18..<24 up.
        let up = try #require(gateUp.slices.first { $0.name == "model.layers.1.mlp.experts.1.up_proj.weight" })
        #expect(up == TensorSlice(name: up.name, shape: [6, 8], elements: 18 * 8..<24 * 8))
        let down = try #require(placements.first { $0.hubName == "model.layers.1.mlp.experts.down_proj" })
        #expect(
            down.slices[2]
                == TensorSlice(
                    name: "model.layers.1.mlp.experts.2.down_proj.weight", shape: [8, 6], elements: 96..<144))
        for placement in placements {
            #expect(placement.slices.allSatisfy { $0.elements.count == $0.shape.reduce(1, *) })
            #expect(placement.slices.first?.elements.lowerBound == 0)
            #expect(placement.slices.last?.elements.upperBound == placement.hubShape.reduce(1, *))
            for (a, b) in zip(placement.slices, placement.slices.dropFirst()) {
                #expect(a.elements.upperBound == b.elements.lowerBound)
            }
        }
    }

    @Test func `Mixtral's router and fused experts come under either word`() throws {
        let map = Self.map(.mixtral)
        for infix in ["mlp", "block_sparse_moe"] {
            var tensors = Self.fused(.mixtral, infix: infix)
            for index in tensors.indices where tensors[index].name.hasSuffix("block_sparse_moe.gate.weight") {
                tensors[index].name = "model.layers.\(index < 12 ? 0 : 1).\(infix).gate.weight"
            }
            #expect(try map.placements(of: tensors).flatMap(\.slices).count == map.written.count)
        }
    }

    @Test(arguments: [HubFamily.deepseekV2, .deepseekV3])
    func `DeepSeek's shared experts have a name of their own, and its prediction layer no place`(
        family: HubFamily
    ) throws {
        let model = HubFitTests.deepSeek(family)
        let map = HubTensorMap(family: family, configuration: model)
        let shared = "model.layers.1.mlp.shared_expert.up_proj.weight"
        let hub = "model.layers.1.mlp.shared_experts.up_proj.weight"
        #expect(map.hubName(shared) == hub && map.name(hub: hub) == shared && map.name(hub: shared) == nil)
        for parameter in model.parameterInventory() {
            #expect(map.name(hub: map.hubName(parameter.name)) == parameter.name)
        }
        let file = map.written.map { (name: $0.hubName, shape: $0.hubShape) }
        #expect(try map.placements(of: file) == map.written)
        // Experts fused as transformers 5 has them in memory.
        var fused = file.filter { !$0.name.contains("layers.2.mlp.experts.") }
        fused.append(("model.layers.2.mlp.experts.gate_up_proj", [8, 12, 16]))
        fused.append(("model.layers.2.mlp.experts.down_proj", [8, 16, 6]))
        #expect(try map.placements(of: fused).flatMap(\.slices).count == map.written.count)

        let further =
            file + [("model.layers.3.eh_proj.weight", [16, 32]), ("model.layers.3.embed_tokens.weight", [1])]
        if family == .deepseekV3 {
            #expect(try map.placements(of: further) == map.written)
            #expect(map.predictionLayer(in: further.map(\.name)).count == 2)
            // A layer that the configuration does not count is none of these.
            let uncounted = ("model.layers.3.input_layernorm.weight", [16])
            #expect(throws: TensorMapError(problems: [.leftOver(name: uncounted.0, shape: uncounted.1)])) {
                try map.placements(of: file + [uncounted])
            }
            #expect(throws: TensorMapError(problems: [.leftOver(name: "model.layers.4.norm.weight", shape: [1])])) {
                try map.placements(of: further + [("model.layers.4.norm.weight", [1])])
            }
        } else {
            #expect(throws: TensorMapError.self) { try map.placements(of: further) }
        }
    }

    @Test func `rotary buffers alone may be left over`() throws {
        let map = Self.map(.olmoe)
        let buffers = [("model.layers.0.self_attn.rotary_emb.inv_freq", [2]), ("model.rotary_emb.inv_freq", [2])]
        #expect(try map.placements(of: Self.file(.olmoe) + buffers).count == map.written.count)
        #expect(throws: TensorMapError(problems: [.leftOver(name: "model.extra", shape: [1, 2])])) {
            try map.placements(of: Self.file(.olmoe) + buffers + [("model.extra", [1, 2])])
        }
    }

    @Test func `all problems are listed, the first differing tensor first`() throws {
        var tensors = Self.file(.olmoe)
        tensors.insert(("a", [1]), at: 0)
        tensors.removeAll { $0.name == "model.layers.1.mlp.experts.0.up_proj.weight" || $0.name == "lm_head.weight" }
        let norm = try #require(tensors.firstIndex { $0.name == "model.layers.0.input_layernorm.weight" })
        tensors[norm].shape = [9]
        tensors.append(("z", []))
        let error = #expect(throws: TensorMapError.self) { try Self.map(.olmoe).placements(of: tensors) }
        #expect(
            error?.problems == [
                .wrongShape(name: "model.layers.0.input_layernorm.weight", found: [9], expected: [8]),
                .missing(name: "model.layers.1.mlp.experts.0.up_proj.weight", shape: [6, 8]),
                .missing(name: "lm_head.weight", shape: [10, 8]), .leftOver(name: "a", shape: [1]),
                .leftOver(name: "z", shape: []),
            ])
        let text = error.map(String.init(describing:)) ?? ""
        #expect(text.hasPrefix("5 tensors do not fit the model"))
        #expect(text.contains("'model.layers.0.input_layernorm.weight' has shape [9] instead of [8]"))
    }

    @Test func `experts may not come twice`() {
        let tensors = Self.file(.olmoe) + [("model.layers.0.mlp.experts.down_proj", [3, 8, 6])]
        let fused = "model.layers.0.mlp.experts.down_proj"
        #expect(
            throws: TensorMapError(
                problems: (0..<3).map {
                    .twice(name: "model.layers.0.mlp.experts.\($0).down_proj.weight", also: fused)
                })
        ) { try Self.map(.olmoe).placements(of: tensors) }
    }

    @Test func `a fused tensor of another shape is named`() {
        var tensors = Self.fused(.qwen3MoE)
        tensors[tensors.count - 1].shape = [3, 6, 8]
        #expect(
            throws: TensorMapError(problems: [
                .wrongShape(name: "model.layers.1.mlp.experts.down_proj", found: [3, 6, 8], expected: [3, 8, 6])
            ])
        ) { try Self.map(.qwen3MoE).placements(of: tensors) }
    }

    @Test func `a file of another model, or an empty one, lists at most twenty lines`() {
        for tensors in [Self.file(.olmoe), []] {
            let error = #expect(throws: TensorMapError.self) { try Self.map(.mixtral).placements(of: tensors) }
            let lines = error.map(String.init(describing:))?.split(separator: "\n").count ?? 0
            #expect(lines <= 22)
        }
    }

    @Test func `a tied head is not read`() {
        var model = Self.model
        model.tiedEmbeddings = true
        #expect(throws: TensorMapError(problems: [.leftOver(name: "lm_head.weight", shape: [10, 8])])) {
            try HubTensorMap(family: .olmoe, configuration: model).placements(of: Self.file(.olmoe))
        }
    }

    @Test func `Apus' own names are not fused`() {
        #expect(throws: TensorMapError.self) { try Self.map(nil).placements(of: Self.fused(.olmoe)) }
    }
}
