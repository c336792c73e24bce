import ApusTestSupport
import Foundation
import Testing

/// What users get wrong: a line that says what, where and what would work; status 1, or 64 for a wrong use.
@Suite struct CLIBadInputTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @Test(arguments: ["eval", "generate", "inspect"])
    func `a folder that is not there`(_ verb: String) throws {
        let more = ["eval": ["--data", "x"], "generate": ["--prompt", "x"]][verb] ?? []
        try CLI.expectRefusal([verb, scratch.file("nothing")] + more, scratch.file("nothing"))
        try CLI.expectRefusal([verb, scratch.path] + more, "config.json")
    }

    @Test func `a shard cut short, and a header that lies`() throws {
        let folder = try scratch.copy(golden: "mixtral")
        let file = "\(folder)/model.safetensors"
        let whole = try #require(FileManager.default.contents(atPath: file))
        try whole.prefix(whole.count / 2).write(to: URL(fileURLWithPath: file))
        try CLI.expectRefusal(["inspect", folder], file)
        var lying = whole
        lying[7] = 0x7f
        try lying.write(to: URL(fileURLWithPath: file))
        try CLI.expectRefusal(["inspect", folder], file)
    }

    @Test func `another architecture`() throws {
        let folder = try scratch.copy(golden: "mixtral")
        let text = try #require(textFile("\(folder)/config.json"))
            .replacingOccurrences(of: "\"mixtral\"", with: "\"llama\"")
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
        try CLI.expectRefusal(["inspect", folder], "'llama'", "mixtral", "olmoe")
    }

    @Test(arguments: [
        ("[[1, 2], [3, 96]]", "byte", "token 96 at position 1 of list 1", "0 ... 95"),
        ("[[1, 2], [3, -1]]", "byte 13", "negative", ""), ("[[1, 2.5]]", "byte 5", "not a whole number", ""),
        ("[1, 2]", "byte 1", "array", ""), ("[[1, 2]", "byte", "", ""), ("[]", "byte", "no list", ""),
        ("[[1]]", "two tokens", "", ""),
    ])
    func `lists of tokens that are none`(_ text: String, _ first: String, _ second: String, _ third: String) throws {
        let file = try scratch.write("ids.json", text: text)
        let arguments = ["eval", try goldenFolder("mixtral"), "--tokens", file]
        let result = try CLI.run(arguments)
        #expect(result.status == 1 && result.output.isEmpty)
        for part in [first, second, third] where !part.isEmpty {
            #expect(result.errors.contains(part), "'\(part)' in: \(result.errors)")
        }
    }

    @Test func `text for a model that does not read bytes`() throws {
        let text = try scratch.write("text.txt", text: "some text")
        try CLI.expectRefusal(["eval", goldenFolder("olmoe"), "--data", text], "OLMoE", "--tokens")
        try CLI.expectRefusal(["generate", goldenFolder("olmoe"), "--prompt", "a"], "OLMoE", "--prompt-tokens")
    }

    @Test func `prompts that cannot be continued`() throws {
        let folder = try goldenFolder("mixtral")
        try CLI.expectRefusal(["generate", folder, "--prompt-tokens", ""], "prompt 0 is empty")
        try CLI.expectRefusal(["generate", folder, "--prompt-tokens", "1 two"], "'two' at position 1 of prompt 0")
        try CLI.expectRefusal(["generate", folder, "--prompt-tokens", "1 96"], "96", "0 ... 95")
        let long = Array(repeating: "1", count: 64).joined(separator: " ")
        try CLI.expectRefusal(["generate", folder, "--prompt-tokens", long], "64 tokens", "context")
        try CLI.expectRefusal(["generate", folder, "--prompt-tokens", "1", "--top-p", "0"], "top-p")
        try CLI.expectRefusal(["generate", folder, "--prompt-tokens", "1", "--max-tokens", "0"], "max-tokens")
    }

    @Test func `an output that cannot be written`() throws {
        let tokens = try scratch.write("ids.json", text: "[[1, 2]]")
        try CLI.expectRefusal(
            ["eval", goldenFolder("mixtral"), "--tokens", tokens, "--logits", scratch.file("no/such/x.safetensors")],
            scratch.file("no/such"))
    }

    @Test(arguments: [
        ["nonsense"], ["eval", "x"], ["eval", "x", "--data", "a", "--tokens", "b"], ["generate", "x"],
        ["bench", "gemm", "--shape", "2x3"], ["bench", "moe-layer", "--choices", "9"], ["train"],
        ["bench", "moe-layer", "--shape", "olmo"], ["bench", "blocksparse", "--block-size", "100"],
        ["bench", "attention", "--shape", "1x2x8x512"],
        ["bench", "attention", "--shape", "1x4x8x8", "--key-heads", "3"],
        ["convert", "export", "x", "--out", "y", "--family", "llama"], ["eval", "x", "--data", "y", "--threads", "0"],
    ])
    func `a wrong use ends with status 64`(_ arguments: [String]) throws {
        let result = try CLI.run(arguments)
        #expect(result.status == 64, "\(result.errors)")
        #expect(result.errors.contains("Usage:"))
    }

    @Test(.enabled(if: access("/dev/nvidiactl", F_OK) != 0, "needs a machine without a GPU"))
    func `a device that this machine has not`() throws {
        try CLI.expectRefusal(["doctor", "--device", "cuda"], "--device cpu")
        let text = try scratch.write("text.txt", text: "some text")
        try CLI.expectRefusal(["eval", goldenFolder("olmoe"), "--data", text, "--device", "cuda"], "--device cpu")
    }
}
