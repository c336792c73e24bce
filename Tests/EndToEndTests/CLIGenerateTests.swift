import ApusModels
import ApusTestSupport
import Foundation
import Testing

/// `apus generate`: batches, streaming, sampling.
@Suite struct CLIGenerateTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func words(_ ids: [Int32]) -> String { ids.map(String.init).joined(separator: " ") }

    @Test(arguments: ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
    func `prompts of different lengths continue as in transformers`(_ family: String) throws {
        let folder = try goldenFolder(family)
        let golden = try SafetensorsFile(path: "\(folder)/golden.safetensors")
        let prompts = try (0..<2).map { words(try golden.int32Values("generate.prompt.\($0)")) }
        let result = try CLI.run(
            ["generate", folder, "--max-tokens", "16", "--json"] + prompts.flatMap { ["--prompt-tokens", $0] })
        #expect(result.status == 0, "\(result.errors)")
        let generations = try #require(try result.object()["generations"] as? [[String: Any]])
        for (index, generation) in generations.enumerated() {
            let expected = try golden.int32Values("generate.tokens.\(index)").map(Int.init)
            #expect(generation["tokens"] as? [Int] == expected)
        }
        #expect(generations.count == 2)
    }

    @Test func `the same seed gives the same text, streamed or not`() throws {
        let run = try CLIRun(scratch)
        let common = ["generate", run.folder, "--prompt", "The quick ", "--max-tokens", "40", "--temperature", "0.9"]
        let first = try CLI.run(common + ["--seed", "5", "--top-k", "50", "--top-p", "0.95"])
        #expect(first.status == 0 && first.output.hasPrefix("The quick "), "\(first.errors)")
        #expect(first.errors.contains("tokens/s"))
        let second = try CLI.run(common + ["--seed", "5", "--top-k", "50", "--top-p", "0.95", "--stream"])
        #expect(second.output == first.output)
        #expect(try CLI.run(common + ["--seed", "6", "--top-k", "50", "--top-p", "0.95"]).output != first.output)
    }

    @Test func `a batch changes no text when it must not`() throws {
        let run = try CLIRun(scratch)
        let options = ["--max-tokens", "20", "--batch-invariant", "--json"]
        let prompts = ["The quick brown fox", "d", "lazy dog. The quick brown"]
        func texts(_ prompts: [String]) throws -> [String] {
            let report = try CLI.run(["generate", run.folder] + options + prompts.flatMap { ["--prompt", $0] }).object()
            return try #require(report["generations"] as? [[String: Any]]).compactMap { $0["text"] as? String }
        }
        let together = try texts(prompts)
        #expect(try prompts.map { try texts([$0])[0] } == together)
    }

    @Test func `a prompt may come from a file`() throws {
        let run = try CLIRun(scratch)
        let file = try scratch.write("prompt.txt", text: "The quick ")
        let fromFile = try CLI.run(["generate", run.folder, "--prompt-file", file, "--max-tokens", "8"])
        let direct = try CLI.run(["generate", run.folder, "--prompt", "The quick ", "--max-tokens", "8"])
        #expect(fromFile.status == 0 && fromFile.output == direct.output)
    }

    /// What a Hugging Face folder continues '5 17 3' with, its `generation_config.json` being `text`.
    private func continued(
        _ folder: String, _ text: String, _ options: String...
    ) throws -> (tokens: [Int], finish: String?) {
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/generation_config.json"))
        let result = try CLI.run(
            ["generate", folder, "--prompt-tokens", "5 17 3", "--max-tokens", "12", "--json"] + options)
        let generations = try #require(try result.object()["generations"] as? [[String: Any]], "\(result.errors)")
        return (try #require(generations.first?["tokens"] as? [Int]), generations.first?["finish"] as? String)
    }

    @Test func `a folder's ids end a text`() throws {
        let folder = try scratch.copy(golden: "qwen3_moe")
        let whole = try continued(folder, "{}")
        #expect(whole.tokens.count == 12 && whole.finish == "length")
        let end = whole.tokens[4]
        let cut = Array(whole.tokens.prefix(through: try #require(whole.tokens.firstIndex(of: end))))
        for ids in ["\(end)", "[2, \(end)]"] {
            let found = try continued(folder, "{\"eos_token_id\": \(ids)}")
            #expect(found.tokens == cut && found.finish == "end")
        }
        // The file comes along when the folder is converted, and counts there too.
        let converted = scratch.file("converted")
        let result = try CLI.run(["convert", "import", folder, "--out", converted])
        #expect(result.status == 0, "\(result.errors)")
        let text = try #require(textFile("\(converted)/generation_config.json"))
        #expect(try continued(converted, text).tokens == cut)
    }

    @Test func `a folder's sampling is the default, and each option replaces its own`() throws {
        let folder = try scratch.copy(golden: "mixtral")
        let sampled = #"{"do_sample": true, "temperature": 1.5, "top_k": 40, "top_p": 0.97}"#
        let greedy = try continued(folder, "{}").tokens
        let drawn = try continued(folder, sampled, "--seed", "3").tokens
        let options = ["--temperature", "1.5", "--top-k", "40", "--top-p", "0.97", "--seed", "3"]
        let asked = try CLI.run(
            ["generate", goldenFolder("mixtral"), "--prompt-tokens", "5 17 3", "--max-tokens", "12", "--json"]
                + options)
        let generations = try #require(try asked.object()["generations"] as? [[String: Any]])
        #expect(drawn == generations.first?["tokens"] as? [Int] && drawn != greedy)
        #expect(try continued(folder, sampled, "--temperature", "0").tokens == greedy)
        #expect(try continued(folder, sampled, "--top-k", "1").tokens == greedy)
        #expect(try continued(folder, sampled, "--top-p", "0.000001").tokens == greedy)
        #expect(try continued(folder, sampled.replacing("true", with: "false"), "--seed", "3").tokens == greedy)
    }

    @Test func `a broken generation_config is refused with its key`() throws {
        let folder = try scratch.copy(golden: "mixtral")
        try scratch.write("mixtral/generation_config.json", text: #"{"eos_token_id": [2, 4096]}"#)
        try CLI.expectRefusal(
            ["generate", folder, "--prompt-tokens", "1"], "mixtral/generation_config.json", "'eos_token_id' is 4096",
            "0 ... 95")
    }
}
