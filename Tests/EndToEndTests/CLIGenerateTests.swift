import ApusModels
import ApusTestSupport
import Foundation
import Testing

/// `apus generate`: batches, streaming, sampling.
@Suite struct CLIGenerateTests {
    private let scratch: CLIScratch

    init() throws { scratch = try CLIScratch() }

    private func words(_ ids: [Int32]) -> String { ids.map(String.init).joined(separator: " ") }

    @Test(arguments: ["mixtral", "olmoe", "qwen3_moe"])
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
        let file = try scratch.write("prompt.txt", "The quick ")
        let fromFile = try CLI.run(["generate", run.folder, "--prompt-file", file, "--max-tokens", "8"])
        let direct = try CLI.run(["generate", run.folder, "--prompt", "The quick ", "--max-tokens", "8"])
        #expect(fromFile.status == 0 && fromFile.output == direct.output)
    }
}
