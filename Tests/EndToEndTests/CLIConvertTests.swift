import ApusModels
import ApusTensor
import ApusTestSupport
import Foundation
import Testing

/// `apus convert`: round trips lose nothing, and what does not fit is named.
@Suite struct CLIConvertTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @discardableResult
    private func convert(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let result = try CLI.run(["convert"] + arguments)
        #expect(result.status == 0, "\(result.errors)", sourceLocation: sourceLocation)
        return result.output
    }

    /// The bytes of every tensor of a folder, with its type and shape.
    private func tensors(_ folder: String) throws -> [String: [UInt8]] {
        let files = try ShardedSafetensors(folder: folder)
        return try Dictionary(
            uniqueKeysWithValues: files.shards.flatMap(\.entries).map { entry in
                let bytes = try files.bytes(entry.name).withUnsafeBytes { Array($0) }
                return ("\(entry.name) \(entry.stored) \(entry.shape)", bytes)
            })
    }

    @Test(arguments: ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
    func `import and export give the same tensors`(_ family: String) throws {
        let source = try goldenFolder(family)
        let (apus, back) = (scratch.file("apus"), scratch.file("back"))
        let said = try convert("import", source, "--out", apus)
        #expect(said.contains("equal to the bit"))
        try convert("export", apus, "--family", family, "--out", back)
        #expect(try tensors(source) == tensors(back))
        #expect(textFile("\(back)/generation_config.json") == textFile("\(source)/generation_config.json"))
        let (old, new) = (try config(source), try config(back))
        for key in ["model_type", "vocab_size", "hidden_size", "num_experts_per_tok", "eos_token_id", "bos_token_id"] {
            #expect(String(describing: old[key]) == String(describing: new[key]), "\(key)")
        }
    }

    private func config(_ folder: String) throws -> [String: Any] {
        let text = try #require(textFile("\(folder)/config.json"))
        return try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    /// Published folders hold, behind the last layer, one that predicts the token after the next.
    @Test func `DeepSeek-V3's prediction layer is left out, which is said`() throws {
        let source = try goldenFolder("deepseek_v3")
        let files = try ShardedSafetensors(folder: source)
        let extra = ["eh_proj.weight", "mlp.gate.weight"].map { "model.layers.2.\($0)" }
        let specs =
            files.shards.flatMap(\.entries).map { TensorSpec(name: $0.name, dtype: .f32, shape: $0.shape) }
            + extra.map { TensorSpec(name: $0, dtype: .f32, shape: [2, 3]) }
        let (folder, plain, out) = (scratch.file("whole"), scratch.file("plain"), scratch.file("out"))
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: "\(source)/config.json", toPath: "\(folder)/config.json")
        var writer = try ShardedSafetensorsWriter(folder: folder, tensors: specs, maximumShardSize: 1 << 20)
        for spec in specs {
            let bytes =
                try extra.contains(spec.name)
                ? Array(repeating: 0, count: 24) : files.bytes(spec.name).withUnsafeBytes { Array($0) }
            try bytes.withUnsafeBytes { try writer.append($0, to: spec.name) }
        }
        _ = try writer.finish()
        let result = try CLI.run(["convert", "import", folder, "--out", out])
        #expect(result.status == 0)
        #expect(result.errors.contains("2 tensors of the layer that predicts further tokens are left out"))
        #expect(result.errors.contains("'model.layers.2.eh_proj.weight'"))
        try convert("import", source, "--out", plain)
        #expect(try tensors(out) == tensors(plain))
    }

    @Test func `bf16 models keep their bits too`() throws {
        let (half, hub, again) = (scratch.file("half"), scratch.file("hub"), scratch.file("again"))
        try convert("import", goldenFolder("olmoe"), "--out", half, "--precision", "bf16")
        // The router of the source is f32 and stays so: it would not fit into bf16.
        try convert("export", half, "--family", "olmoe", "--out", hub)
        #expect(try tensors(hub).keys.contains { $0.hasPrefix("lm_head.weight bf16") })
        #expect(try tensors(hub).keys.contains { $0.hasPrefix("model.layers.0.mlp.gate.weight f32") })
        try convert("import", hub, "--out", again)
        #expect(try tensors(half) == tensors(again))
    }

    @Test func `fused experts become the same model`() throws {
        try convert("import", goldenFolder("mixtral"), "--out", scratch.file("plain"))
        try convert("import", goldenFolder("mixtral_fused"), "--out", scratch.file("fused"))
        #expect(try tensors(scratch.file("plain")) == tensors(scratch.file("fused")))
    }

    @Test func `a tensor that is missing or left over is named`() throws {
        let folder = try scratch.copy(golden: "mixtral")
        var text = try #require(textFile("\(folder)/config.json"))
        text = text.replacingOccurrences(of: "\"num_hidden_layers\": 2", with: "\"num_hidden_layers\": 1")
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
        try CLI.expectRefusal(
            ["convert", "import", folder, "--out", scratch.file("out")],
            "'model.layers.1.input_layernorm.weight' [32] has no place in the model")
        text = text.replacingOccurrences(of: "\"num_hidden_layers\": 1", with: "\"num_hidden_layers\": 3")
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
        try CLI.expectRefusal(
            ["convert", "import", folder, "--out", scratch.file("out")],
            "'model.layers.2.input_layernorm.weight' [32] is missing")
        #expect(!FileManager.default.fileExists(atPath: scratch.file("out")))
    }

    @Test func `what a family cannot say and a folder that is taken are refused`() throws {
        try convert("import", goldenFolder("olmoe"), "--out", scratch.file("olmoe"))
        try CLI.expectRefusal(
            ["convert", "export", scratch.file("olmoe"), "--family", "mixtral", "--out", scratch.file("x")],
            "'query_key_norm'", "Mixtral", "OLMoE")
        try CLI.expectRefusal(
            ["convert", "import", goldenFolder("olmoe"), "--out", scratch.file("olmoe")], scratch.file("olmoe"))
        try CLI.expectRefusal(
            ["convert", "import", scratch.file("olmoe"), "--out", scratch.file("y")], "is an Apus checkpoint already")
        try CLI.expectRefusal(
            ["convert", "import", goldenFolder("olmoe"), "--out", "/proc/apus"], "/proc")
        #expect(folderNames(scratch.path) == ["olmoe"])
    }
}
