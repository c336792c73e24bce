import ApusData
import ApusTestSupport
import Foundation
import Testing

/// Models of tokenizers: text in, text out, from `tokenizer train` to `generate` and `eval`.
@Suite struct CLITextTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private static let python = ProcessInfo.processInfo.environment["APUS_PYTHON"]
    private static let needs: Comment = "needs a Python with tokenizers: set APUS_PYTHON"

    /// A run trained on one short document again and again, and the tokenizer that it was prepared with.
    private func trainedRun(_ document: String, steps: Int) throws -> (run: String, tokenizer: String) {
        let lines = try scratch.write(
            "docs.jsonl", text: String(repeating: "{\"text\": \"\(document)\"}\n", count: 600))
        let (tokenizer, data, run) = (scratch.file("t.json"), scratch.file("prepared"), scratch.file("run"))
        let recipe = try scratch.write(
            "tiny.yaml",
            text: """
                model: {preset: tiny, vocabulary: 320}
                data: {path: \(data), sequence_length: 32}
                training:
                  {steps: \(steps), batch: 4, precision: f32, threads: 1, evaluate_every: 0,
                   optimizer: {learning_rate: 0.02}}
                """)
        for arguments in [
            ["tokenizer", "train", lines, "--vocab", "272", "--out", tokenizer],
            ["data", "prepare", lines, "--tokenizer", tokenizer, "--out", data], ["train", recipe, "--out", run],
        ] {
            let result = try CLI.run(arguments)
            try #require(result.status == 0, "\(result.errors)")
        }
        return (run, tokenizer)
    }

    private func generation(_ arguments: [String]) throws -> (prompt: [Int32], ids: [Int32], text: String, end: String)
    {
        let result = try CLI.run(["generate"] + arguments + ["--json"])
        try #require(result.status == 0, "\(result.errors)")
        let object = try #require((try result.object()["generations"] as? [[String: Any]])?.first)
        return (
            try #require(object["prompt_tokens"] as? [Int]).map(Int32.init),
            try #require(object["tokens"] as? [Int]).map(Int32.init), try #require(object["text"] as? String),
            try #require(object["finish"] as? String)
        )
    }

    @Test func `a run reads and writes the text of its tokenizer, wherever its checkpoint is`() throws {
        let document = "the größte swift 🪶 sleeps on the wing"
        let (run, file) = try trainedRun(document, steps: 120)
        let tokenizer = try Tokenizer(file: file)
        let prompt = "the größte"
        let found = try generation([run, "--prompt", prompt, "--max-tokens", "60"])
        #expect(found.prompt == tokenizer.encode(prompt))
        #expect(tokenizer.text(of: found.prompt + found.ids) == prompt + found.text)
        // It has learned the document, and to end after it; the end is an id and no text.
        #expect(found.text == document.dropFirst(prompt.count) && found.end == "end", "\(found.text)")
        #expect(found.ids.last == tokenizer.endOfDocument)

        // A checkpoint is whole: neither the data nor the run are needed.
        let steps = folderNames("\(run)/checkpoints")
        let copy = try scratch.copy(folder: "\(run)/checkpoints/\(try #require(steps.last))", as: "copy")
        for name in ["prepared", "run", "t.json"] { try FileManager.default.removeItem(atPath: scratch.file(name)) }
        let options = ["generate", copy, "--prompt", prompt, "--max-tokens", "60"]
        let whole = try CLI.run(options)
        #expect(whole.status == 0 && whole.output == document + "\n", "\(whole.errors)")
        #expect(try CLI.run(options + ["--stream"]).output == whole.output)
        // Ids end as text does.
        let ids = found.prompt.map(String.init).joined(separator: " ")
        let fromIDs = try CLI.run(["generate", copy, "--prompt-tokens", ids, "--max-tokens", "60"])
        let expected = (found.prompt + found.ids).map(String.init).joined(separator: " ")
        #expect(fromIDs.output == expected + "\n", "\(fromIDs.errors)")
        #expect(try CLI.run(["inspect", copy]).output.contains("320 (tokenizer.json)"))
    }

    @Test func `text is evaluated as prepared data is`() throws {
        let (run, file) = try trainedRun("a swift sleeps on the wing", steps: 3)
        let text = try scratch.write("other.txt", text: "a wing, a swift, über allem\nand on")
        let direct = try CLI.run(["eval", run, "--data", text, "--json"])
        try #require(direct.status == 0, "\(direct.errors)")
        let tokens = try Tokenizer(file: file).encode("a wing, a swift, über allem\nand on")
        #expect(try direct.object()["tokens"] as? Int == tokens.count)
        let data = scratch.file("other")
        try #require(try CLI.run(["data", "prepare", text, "--tokenizer", file, "--out", data]).status == 0)
        let prepared = try CLI.run(["eval", run, "--data", data, "--json"])
        for key in ["tokens", "nats_per_token", "bits_per_byte"] {
            #expect(try direct.object()[key] as? Double == (try prepared.object()[key] as? Double), "\(key)")
        }
        #expect(try direct.object()["bits_per_byte"] is Double)
        let bytes = scratch.file("bytes")
        try #require(try CLI.run(["data", "prepare", text, "--tokenizer", "bytes", "--out", bytes]).status == 0)
        try CLI.expectRefusal(["eval", run, "--data", bytes], "'\(bytes)' has tokens of 'bytes'", "tokenizer.json")
    }

    @Test func `what cannot be read as text is refused with what works`() throws {
        let (run, file) = try trainedRun("a swift", steps: 1)
        let mixtral = try scratch.copy(golden: "mixtral")
        let prompt = ["--prompt", "a", "--max-tokens", "2"]
        try CLI.expectRefusal(
            ["generate", mixtral] + prompt, "has no tokenizer", "tokenizer.json", "--tokenizer", "--prompt-tokens")
        try CLI.expectRefusal(["generate", mixtral, "--tokenizer", file] + prompt, "t.json' has 2", "'\(mixtral)' 96")
        try CLI.expectRefusal(["generate", run, "--tokenizer", scratch.file("none.json")] + prompt, "no such file")
        try CLI.expectRefusal(["generate", run, "--tokenizer", scratch.file("docs.jsonl")] + prompt, "docs.jsonl")
        try scratch.write("mixtral/tokenizer.json", text: "{}")
        try CLI.expectRefusal(["generate", mixtral] + prompt, "mixtral/tokenizer.json", "no model")
        // Ids need no tokenizer.
        #expect(try CLI.run(["generate", mixtral, "--prompt-tokens", "5 17 3", "--max-tokens", "2"]).status == 0)
        let packed = try scratch.write("a.txt.gz", text: "no matter")
        try CLI.expectRefusal(["eval", run, "--data", packed], "a.txt.gz", "apus data prepare")
        try CLI.expectRefusal(["eval", run, "--data", scratch.file("docs.jsonl")], "JSONL", "apus data prepare")
    }

    /// A Hugging Face folder whose tokenizer has the 95 visible characters, an end, and a template that begins with it.
    private func visibleFolder() throws -> String {
        let folder = try scratch.copy(golden: "mixtral")
        let characters = (0x21...0x7E).map { String(Unicode.Scalar(UInt8($0))) } + ["Ġ"]
        let vocabulary = characters.enumerated().map {
            "\"\(["\"", "\\"].contains($0.element) ? "\\" : "")\($0.element)\": \($0.offset)"
        }
        try scratch.write(
            "mixtral/tokenizer.json",
            text: """
                {"version": "1.0", "truncation": null, "padding": null,
                 "added_tokens": [{"id": 95, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                  "rstrip": false, "normalized": false, "special": true}],
                 "normalizer": null,
                 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
                 "post_processor": {"type": "TemplateProcessing",
                  "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
                  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                  "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [95], "tokens": ["<|endoftext|>"]}}},
                 "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
                 "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": {\(vocabulary.joined(separator: ", "))}, "merges": []}}
                """)
        return folder
    }

    @Test func `a Hugging Face folder's prompts begin as its template says, and special ids are not printed`() throws {
        let folder = try visibleFolder()
        let found = try generation([folder, "--prompt", "Hi you<|endoftext|>!", "--max-tokens", "8"])
        #expect(found.prompt == [95, 39, 72, 94, 88, 78, 84, 95, 0])
        let printed = try CLI.run(["generate", folder, "--prompt", "Hi you<|endoftext|>!", "--max-tokens", "8"])
        #expect(printed.output == "Hi you!\(found.text)\n")
        try #require(found.ids.count == 8)
        // The fourth id ends the text where the folder says so.
        try scratch.write("mixtral/generation_config.json", text: "{\"eos_token_id\": \(found.ids[3])}")
        let ended = try generation([folder, "--prompt", "Hi you<|endoftext|>!", "--max-tokens", "8"])
        let first = try #require(found.ids.firstIndex(of: found.ids[3]))
        #expect(ended.ids == Array(found.ids[...first]) && ended.end == "end")
    }

    @Test(.enabled(if: python != nil, needs))
    func `ids and text are those of the tokenizers library`() throws {
        let (run, file) = try trainedRun("the größte swift 🪶 sleeps", steps: 2)
        let program = """
            import json, sys
            from tokenizers import Tokenizer
            tokenizer = Tokenizer.from_file(sys.argv[1])
            ids = json.loads(sys.argv[3])
            print(json.dumps([tokenizer.encode(sys.argv[2]).ids, tokenizer.decode(ids)]))
            """
        for (model, tokenizer, prompt) in [
            (run, file, "swift 🪶 über<|endoftext|>the"),
            (try visibleFolder(), scratch.file("mixtral/tokenizer.json"), "Hi you<|endoftext|>!"),
        ] {
            let found = try generation([model, "--prompt", prompt, "--max-tokens", "12", "--temperature", "1"])
            let ids = "\(found.prompt + found.ids)"
            let result = try CLI.run(try #require(Self.python), ["-c", program, tokenizer, prompt, ids])
            try #require(result.status == 0, "\(result.errors)")
            let answer = try #require(
                try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [Any], "\(result.output)")
            #expect(answer[0] as? [Int] == found.prompt.map(Int.init))
            let printed = try CLI.run([
                "generate", model, "--prompt", prompt, "--max-tokens", "12", "--temperature", "1",
            ])
            #expect(printed.output == (answer[1] as? String).map { $0 + "\n" }, "\(printed.errors)")
        }
    }
}
