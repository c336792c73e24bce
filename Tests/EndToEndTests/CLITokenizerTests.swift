import ApusTestSupport
import Testing

/// `apus tokenizer train`, and the file in use.
@Suite struct CLITokenizerTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @Test func `a tokenizer is trained, prepares text, and is trained on`() throws {
        let text = try scratch.write(
            "book.txt", text: (0..<2000).map { "Line \($0): the swift sleeps on the wing.\n" }.joined())
        let file = scratch.file("tokenizer.json")
        let trained = try CLI.run(["tokenizer", "train", text, "--vocab", "300", "--out", file])
        #expect(trained.status == 0 && trained.output.hasPrefix("300 tokens in "), "\(trained.errors)")
        let out = scratch.file("prepared")
        let prepare = ["data", "prepare", text, "--tokenizer", file, "--shard-tokens", "4096", "--out", out]
        let prepared = try CLI.run(prepare)
        #expect(prepared.status == 0, "\(prepared.errors)")
        let recipe = try scratch.write(
            "tiny.yaml",
            text: """
                model: {preset: tiny, vocabulary: 300}
                data: {path: \(out), sequence_length: 32}
                training: {steps: 3, batch: 4, precision: f32, threads: 1, evaluate_every: 0}
                """)
        let run = scratch.file("run")
        let training = try CLI.run(["train", recipe, "--out", run])
        #expect(training.status == 0, "\(training.errors)")
    }

    @Test func `sizes and patterns that cannot be are refused`() throws {
        let text = try scratch.write("a.txt", text: "a b c")
        let train = ["tokenizer", "train", text, "--out", scratch.file("t.json")]
        let small = try CLI.run(train + ["--vocab", "100"])
        #expect(small.status != 0 && small.errors.contains("--vocab is 100; it must be from 257"), "\(small.errors)")
        let pattern = try CLI.run(train + ["--vocab", "300", "--pattern", "gpt9"])
        #expect(pattern.status != 0 && pattern.errors.contains("gpt2, llama3 or qwen2"), "\(pattern.errors)")
        let missing = try CLI.run(
            ["tokenizer", "train", "/none.txt", "--vocab", "300", "--out", scratch.file("t.json")])
        #expect(missing.status != 0 && missing.errors.contains("/none.txt"), "\(missing.errors)")
    }
}
