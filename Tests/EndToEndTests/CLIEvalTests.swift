import ApusModels
import ApusTestSupport
import Foundation
import Testing

/// `apus eval` on models that Hugging Face's own code wrote, and on bytes.
@Suite struct CLIEvalTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @Test(arguments: ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
    func `logits and loss are those of transformers`(_ family: String) throws {
        let folder = try goldenFolder(family)
        let golden = try SafetensorsFile(path: "\(folder)/golden.safetensors")
        let shape = try golden.entry("plain.logits").shape
        let tokens = try scratch.write(
            "ids.json", text: tokenLists(golden.int32Values("plain.input_ids"), width: shape[1]))
        let file = scratch.file("logits.safetensors")
        let result = try CLI.run(["eval", folder, "--tokens", tokens, "--logits", file, "--json"])
        #expect(result.status == 0, "\(result.errors)")

        let written = try SafetensorsFile(path: file)
        #expect(written.names.sorted() == (0..<shape[0]).map { "logits.\($0)" })
        let logits = try (0..<shape[0]).flatMap { try written.floatValues("logits.\($0)") }
        for index in 0..<shape[0] { #expect(try written.entry("logits.\(index)").shape == [shape[1], shape[2]]) }
        try expectClose(logits, golden.floatValues("plain.logits").map(Double.init), within: 1e-5, "logits")

        let report = try result.object()
        let loss = try #require(report["nats_per_token"] as? Double)
        #expect(abs(loss / Double(try golden.floatValues("plain.lm_loss")[0]) - 1) < 1e-5)
        #expect(report["tokens"] as? Int == shape[0] * (shape[1] - 1))
        #expect(report["bits_per_byte"] is NSNull)
    }

    @Test(
        .enabled(
            if: ProcessInfo.processInfo.environment["APUS_PYTHON"] != nil,
            "needs a Python with safetensors: set APUS_PYTHON"))
    func `python reads the logits`() throws {
        let python = try #require(ProcessInfo.processInfo.environment["APUS_PYTHON"])
        let tokens = try scratch.write("ids.json", text: "[[1, 2, 3], [4, 5]]")
        let file = scratch.file("logits.safetensors")
        let result = try CLI.run(["eval", goldenFolder("mixtral"), "--tokens", tokens, "--logits", file])
        #expect(result.status == 0, "\(result.errors)")
        let program = """
            import sys
            from safetensors import safe_open
            with safe_open(sys.argv[1], framework="np") as f:
                for key in sorted(f.keys()):
                    value = f.get_tensor(key)
                    print(key, value.dtype, value.shape, repr(float(value[-1, -1])))
            """
        let read = try CLI.run(python, ["-c", program, file])
        #expect(read.status == 0, "\(read.errors)")
        let written = try SafetensorsFile(path: file)
        let lines = try [(0, 3), (1, 2)].map { index, count in
            let last = try #require(try written.floatValues("logits.\(index)").last)
            return "logits.\(index) float32 (\(count), 96) \(Double(last))\n"
        }
        #expect(read.output == lines.joined())
    }

    @Test func `a run's model predicts text by bytes`() throws {
        let run = try CLIRun(scratch)
        let result = try CLI.run(["eval", run.folder, "--data", run.text, "--max-tokens", "200", "--json"])
        #expect(result.status == 0, "\(result.errors)")
        let report = try result.object()
        #expect(report["tokens"] as? Int == 199)
        let nats = try #require(report["nats_per_token"] as? Double)
        let bits = try #require(report["bits_per_byte"] as? Double)
        // Every token is one byte.
        #expect(abs(bits - nats / log(2)) < 1e-9)
        #expect(abs(try #require(report["perplexity"] as? Double) - exp(nats)) < 1e-9 * exp(nats))
    }
}

/// A run of two steps, trained for a test.
struct CLIRun {
    let folder: String
    let text: String

    init(_ scratch: ScratchFolder) throws {
        folder = scratch.file("run")
        text = try scratch.write(
            "text.txt", text: String(repeating: "The quick brown fox jumps over the lazy dog. ", count: 60))
        let recipe = try scratch.write(
            "tiny.yaml",
            text: """
                model: {preset: tiny}
                data: {path: \(text), sequence_length: 32}
                training: {steps: 2, batch: 2, precision: f32, threads: 1}
                """)
        let result = try CLI.run(["train", recipe, "--out", folder])
        try #require(result.status == 0, "\(result.errors)")
    }
}
