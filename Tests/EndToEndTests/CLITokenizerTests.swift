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

    @Test func `fewer tokens than asked for are said, and inputs are those of preparation`() throws {
        let lines = try scratch.write("a.jsonl", text: String(repeating: "{\"text\": \"a swift\"}\n", count: 9))
        let train = { (input: String) in
            ["tokenizer", "train", input, "--vocab", "300", "--out", scratch.file("t.json")]
        }
        let trained = try CLI.run(train(lines))
        // ' swift' takes five merges; nothing of the JSON around is learned.
        #expect(trained.status == 0 && trained.output.hasPrefix("262 tokens in "), "\(trained.output)")
        #expect(trained.errors.contains("300 were asked for"), "\(trained.errors)")
        let piped = try CLI.run(train("-"), input: String(repeating: "a swift\n", count: 9))
        #expect(piped.status == 0 && piped.output.hasPrefix("262 tokens in "), "\(piped.output)")
        let unnamed = try CLI.run(train("-"), input: "{\"text\": \"a\"}\n")
        #expect(unnamed.status == 1 && unnamed.errors.contains("begins as JSONL"), "\(unnamed.errors)")
        let binary = try scratch.write("a.bin", [1, 0, 2])
        try CLI.expectRefusal(train(binary), "a.bin' is not text: byte 0 at offset 1")
        try CLI.expectRefusal(train(scratch.path + "/none"), "none' cannot be read")
    }

    @Test func `its speed is measured, alone and in turn with another program`() throws {
        let text = try scratch.write(
            "a.txt", text: (0..<500).map { "Line \($0): the swift sleeps on the wing.\n" }.joined())
        let bench = ["bench", "tokenizer", text, "--vocab", "300", "--rounds", "2"]
        let report = try CLI.run(bench + ["--json"]).object()
        for key in ["load_seconds", "train_seconds", "encode_seconds", "encode_megabytes_per_second"] {
            #expect(try #require(report[key] as? Double) > 0, "\(key)")
        }
        let tokens = try #require(report["tokens"] as? Int)
        #expect(report["vocabulary"] as? Int == 300 && tokens > 1000)
        #expect(try CLI.run(bench).output.contains("MB/s"))
        let file = scratch.file("t.json")
        try #require(try CLI.run(["tokenizer", "train", text, "--vocab", "300", "--out", file]).status == 0)
        let answers = try CLI.run(
            ["bench", "tokenizer", "--interactive", "--tokenizer", file, text], input: "\nload\ntrain\n")
        let lines = answers.output.split(separator: "\n")
        #expect(lines.count == 4 && lines[0] == "ready" && lines[1].contains("checksum"), "\(answers.output)")
        for arguments in [["bench", "tokenizer"], ["bench", "tokenizer", "--vocab", "300"]] {
            #expect(try CLI.run(arguments).status == 64)
        }
        let data = scratch.file("prepared")
        try #require(try CLI.run(["data", "prepare", text, "--tokenizer", file, "--out", data]).status == 0)
        let reading = ["bench", "data", data, "--tokens", "4096", "--sequence-length", "64", "--document-mask"]
        let speed = try CLI.run(reading + ["--json"])
        #expect(try #require(speed.object()["tokens_per_second"] as? Double) > 0, "\(speed.errors)")
        try CLI.expectRefusal(["bench", "data", scratch.path], "holds no prepared data")
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
