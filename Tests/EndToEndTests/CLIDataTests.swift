import ApusData
import ApusTestSupport
import Foundation
import Testing

/// `apus data`: text to shards, shards to runs.
@Suite struct CLIDataTests {
    private static let isLong = ProcessInfo.processInfo.environment["APUS_SOAK"] == "1"
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func writeText() throws -> String {
        try scratch.write("book.txt", text: (0..<900).map { "Line \($0): the swift sleeps on the wing.\n" }.joined())
    }

    private func recipe(_ data: String, name: String = "tiny.yaml", _ training: String = "") throws -> String {
        try scratch.write(
            name,
            text: """
                model: {preset: tiny}
                data: {\(data), sequence_length: 32}
                training: {steps: 4, batch: 4, precision: f32, threads: 1\(training)}
                """)
    }

    @Test func `prepare, inspect, train and evaluate`() throws {
        let documents = (0..<400).map { "{\"text\": \"Document \($0) has \($0 * 7 % 11) eggs, \\u00e9\\n and more.\"}" }
        let lines = try scratch.write("docs.jsonl", text: documents.joined(separator: "\n"))
        let out = scratch.file("prepared")
        let prepared = try CLI.run([
            "data", "prepare", lines, try writeText(), "--tokenizer", "bytes", "--out", out, "--held-out", "0.1",
            "--shard-tokens", "4000", "--json",
        ])
        #expect(prepared.status == 0, "\(prepared.errors)")
        let summary = try prepared.object()
        let training = try #require(summary["training"] as? [String: Int])
        let heldOut = try #require(summary["held-out"] as? [String: Int])
        #expect(try #require(training["documents"]) + (try #require(heldOut["documents"])) == 401)
        #expect(try #require(heldOut["documents"]) > 15)

        let inspected = try CLI.run(["data", "inspect", out, "--verify", "--samples", "3", "--json"])
        #expect(inspected.status == 0, "\(inspected.errors)")
        let report = try inspected.object()
        #expect(report["verified"] as? Bool == true)
        #expect((report["shards"] as? [[String: Any]])?.count == (summary["shards"] as? [[String: Any]])?.count)
        let samples = try #require(report["samples"] as? [[String: Any]])
        let texts = samples.compactMap { $0["text"] as? String }
        #expect(texts.count == 3)
        #expect(texts[0].hasPrefix("Document ") && texts[0].hasSuffix("eggs, é\n and more."), "\(texts)")
        let shard = try CLI.run(["data", "inspect", "\(out)/training-00001.tokens", "--samples", "1"])
        #expect(shard.output.contains("1 shard") && shard.output.contains("--- training, token"), "\(shard.output)")

        let run = scratch.file("run")
        let file = try recipe("path: \(out), document_mask: true", ", evaluate_every: 2, evaluate_batches: 2")
        let trained = try CLI.run(["train", file, "--out", run])
        #expect(trained.status == 0, "\(trained.errors)")
        #expect(trained.output.contains("\(try #require(training["tokens"])) tokens"), "\(trained.output)")
        let evaluated = try CLI.run(["eval", run, "--data", out, "--json"])
        #expect(evaluated.status == 0, "\(evaluated.errors)")
        #expect(try evaluated.object()["tokens"] as? Int == (try #require(heldOut["tokens"])) - 1)
    }

    @Test func `standard input is read, as text or as lines`() throws {
        let arguments = ["data", "prepare", "-", "--tokenizer", "bytes", "--out"]
        let text = try CLI.run(arguments + [scratch.file("text"), "--json"], input: "one\ntwo")
        #expect(text.status == 0, "\(text.errors)")
        #expect(try #require(text.object()["training"] as? [String: Int]) == ["documents": 1, "tokens": 8])
        let lines = try CLI.run(
            arguments + [scratch.file("lines"), "--format", "jsonl", "--json"],
            input: "{\"text\": \"one\"}\n{\"text\": \"two\"}\n")
        #expect(try #require(lines.object()["training"] as? [String: Int]) == ["documents": 2, "tokens": 8])
    }

    @Test func `lines that are taken for text, and nothing to train on, are told`() throws {
        let prepare = ["data", "prepare", "-", "--tokenizer", "bytes", "--out"]
        let lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n"
        let guessed = try CLI.run(prepare + [scratch.file("a")], input: lines)
        #expect(guessed.status == 1 && guessed.errors.contains("standard input' begins as JSONL"), "\(guessed.errors)")
        let asked = try CLI.run(prepare + [scratch.file("b"), "--format", "text", "--json"], input: lines)
        #expect(try #require(asked.object()["training"] as? [String: Int])["documents"] == 1)
        let empty = try CLI.run(prepare + [scratch.file("c")])
        #expect(empty.status == 1 && empty.errors.contains("'standard input' is empty"), "\(empty.errors)")
        let held = try CLI.run(prepare + [scratch.file("d"), "--held-out", "0.9999999"], input: "a text")
        #expect(held.status == 0 && held.errors.contains("none is left to train on"), "\(held.errors)")
        #expect(held.output.contains("1 file, 1 document, 6 B"), "\(held.output)")
    }

    @Test func `what cannot work is refused in one line`() throws {
        let text = try writeText()
        let out = scratch.file("out")
        let prepare = { (input: String) in ["data", "prepare", input, "--tokenizer", "bytes", "--out", out] }
        try CLI.expectRefusal(prepare(scratch.file("none.txt")), "none.txt", "No such file")
        let lines = try scratch.write("bad.jsonl", text: "{\"text\": \"a\"}\n{\"body\": 1}\n")
        try CLI.expectRefusal(prepare(lines), "bad.jsonl', line 2", "\"text\"")
        try CLI.expectRefusal(prepare(scratch.path + "/bad.jsonl.gz"), "bad.jsonl.gz")
        try CLI.expectRefusal(["data", "inspect", text], "book.txt", "apus data prepare")
        try #require(try CLI.run(prepare(text)).status == 0)
        try CLI.expectRefusal(prepare(text), "'\(out)' exists already", "--out")
        // Nothing was held out, and the recipe evaluates.
        try CLI.expectRefusal(
            ["train", try recipe("path: \(out)"), "--out", scratch.file("run")], "nothing held out", "--held-out")
        let shard = "\(out)/training-00000.tokens"
        var bytes = try Data(contentsOf: URL(fileURLWithPath: shard))
        bytes[1000] ^= 1
        try bytes.write(to: URL(fileURLWithPath: shard))
        let file = try recipe("path: \(out), held_out: 0")
        try CLI.expectRefusal(["train", file, "--out", scratch.file("run")], shard, "checksum")
        try CLI.expectRefusal(["data", "inspect", out, "--verify"], shard, "checksum")
        try bytes.dropLast(9).write(to: URL(fileURLWithPath: shard))
        try CLI.expectRefusal(["data", "inspect", out], shard, "bytes, its manifest says")
    }

    @Test func `a run does not go on with other data`() throws {
        let text = try writeText()
        let out = scratch.file("out")
        let prepare = ["data", "prepare", text, "--tokenizer", "bytes", "--out", out]
        try #require(try CLI.run(prepare).status == 0)
        let file = try recipe("path: \(out), held_out: 0")
        let train = ["train", file, "--out", scratch.file("run")]
        try #require(try CLI.run(train).status == 0)
        try FileManager.default.removeItem(atPath: out)
        try scratch.write("book.txt", text: "Another text. " + String(repeating: "It is about as long. ", count: 2000))
        try #require(try CLI.run(prepare).status == 0)
        try CLI.expectRefusal(train + ["--resume", "--steps", "6"], "'\(out)' is not the text", "checksum")
    }

    /// A corpus larger than the address space that each command gets.
    @Test func `memory does not grow with the corpus`() throws {
        let megabytes = Self.isLong ? 2000 : 200
        let limit = 150_000  // KiB
        let out = scratch.file("out")
        let line = "{\\\"text\\\": \\\"" + String(repeating: "a swift sleeps on the wing ", count: 20) + "\\\"}"
        let prepare = """
            yes "\(line)" | head -n \(megabytes * 1_000_000 / 554) | (ulimit -v \(limit); exec "$0" data prepare - \
            --format jsonl --tokenizer bytes --out \(out) --held-out 0.01 --shard-tokens 20000000 --threads 2)
            """
        let prepared = try CLI.run("/bin/sh", ["-c", prepare, try builtCommand()])
        #expect(prepared.status == 0, "\(prepared.errors)")
        let inspect = "ulimit -v \(limit); exec \"$0\" data inspect \(out) --verify --samples 200 --json"
        let inspected = try CLI.run("/bin/sh", ["-c", inspect, try builtCommand()])
        #expect(inspected.status == 0, "\(inspected.errors)")
        let shards = try #require(inspected.object()["shards"] as? [[String: Any]])
        #expect(shards.reduce(0) { $0 + ($1["bytes"] as? Int ?? 0) } > 2 * limit * 1024)
        #expect((try inspected.object()["samples"] as? [[String: Any]])?.count == 200)
        let read = "ulimit -v \(limit); exec \"$0\" bench data \(out) --document-mask --json"
        let reading = try CLI.run("/bin/sh", ["-c", read, try builtCommand()])
        #expect(try #require(reading.object()["tokens_per_second"] as? Double) > 0, "\(reading.errors)")
    }
}
