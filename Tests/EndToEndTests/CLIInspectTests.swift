import ApusTestSupport
import Foundation
import Testing

/// `apus inspect`: sizes, tensors, the state of a run, checksums.
@Suite struct CLIInspectTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @Test func `a hugging face folder`() throws {
        let result = try CLI.run(["inspect", goldenFolder("qwen3_moe"), "--tensors", "--json"])
        #expect(result.status == 0, "\(result.errors)")
        let report = try result.object()
        #expect(report["kind"] as? String == "qwen3_moe")
        #expect(report["moe_layers"] as? [Int] == [0, 2])
        #expect(report["step"] is NSNull)
        let tensors = try #require(report["tensors"] as? [[String: Any]])
        let elements = try tensors.reduce(0) { try $0 + #require($1["shape"] as? [Int]).reduce(1, *) }
        #expect(report["parameters"] as? Int == elements)
        #expect(try #require(report["active_parameters"] as? Int) < elements)
        #expect(tensors.allSatisfy { $0["dtype"] as? String == "F32" })

        let text = try CLI.run(["inspect", goldenFolder("qwen3_moe"), "--tensors"]).output
        #expect(text.contains("Qwen3-MoE") && text.contains("layer 1: dense"))
        #expect(text.contains("model.layers.0.mlp.gate.weight"))
        try CLI.expectRefusal(["inspect", goldenFolder("qwen3_moe"), "--verify"], "checksums.json")
    }

    @Test func `a run, and a byte that changed in it`() throws {
        let run = try CLIRun(scratch)
        let report = try CLI.run(["inspect", run.folder, "--verify", "--json"]).object()
        #expect(report["kind"] as? String == "apus" && report["step"] as? Int == 2)
        #expect(report["verified"] as? Bool == true)
        #expect((report["settings"] as? [String: String])?["training.precision"] == "f32")
        let folder = try #require(report["folder"] as? String)
        #expect(folder.hasSuffix("run/checkpoints/step-00000002"))
        #expect(try CLI.run(["inspect", run.folder]).output.contains("(bytes)"))

        let file = "\(folder)/model.safetensors"
        var bytes = try #require(FileManager.default.contents(atPath: file))
        bytes[bytes.count - 5] ^= 1
        try bytes.write(to: URL(fileURLWithPath: file))
        try CLI.expectRefusal(["inspect", run.folder, "--verify"], file, "checksum")
    }
}
