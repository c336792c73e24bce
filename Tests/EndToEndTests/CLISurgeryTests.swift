import ApusModels
import ApusTestSupport
import Foundation
import Testing

/// `apus upcycle`, `apus aggregate` and `apus prune`: results are checkpoints like any other.
@Suite struct CLISurgeryTests {
    private let scratch: ScratchFolder
    private let text: String

    init() throws {
        scratch = try ScratchFolder()
        text = try scratch.write(
            "text.txt", text: String(repeating: "The quick brown fox jumps over the lazy dog. ", count: 60))
    }

    /// A run of four steps, with a dense model or with one of this many experts.
    private func train(_ name: String, experts: Int? = nil, seed: Int = 1, _ more: [String] = []) throws -> String {
        let mixture = experts.map { "\n  experts: {count: \($0), choices: 2, width: 24, every: 2}" } ?? ""
        let recipe = try scratch.write(
            "\(name).yaml",
            text: """
                seed: \(seed)
                model:
                  layers: 4
                  width: 32
                  heads: 2
                  feed_forward_width: 48\(mixture)
                data: {path: \(text), sequence_length: 32}
                training: {steps: 4, batch: 2, precision: f32, threads: 1}
                """)
        let result = try CLI.run(["train", recipe, "--out", scratch.file(name)] + more)
        try #require(result.status == 0, "\(result.errors)")
        return scratch.file(name)
    }

    private func run(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> [String: Any]
    {
        let result = try CLI.run(arguments + ["--json"])
        #expect(result.status == 0, "\(result.errors)", sourceLocation: sourceLocation)
        return try result.object()
    }

    private func logits(_ model: String) throws -> [Float] {
        let ids = try scratch.write("ids.json", text: tokenLists(Array(40..<72), width: 16))
        let file = scratch.file("logits.safetensors")
        let result = try CLI.run(["eval", model, "--tokens", ids, "--logits", file])
        #expect(result.status == 0, "\(result.errors)")
        let written = try SafetensorsFile(path: file)
        return try (0..<2).flatMap { try written.floatValues("logits.\($0)") }
    }

    private func experts(_ report: [String: Any]) throws -> [Int] {
        try #require(report["experts"] as? [[String: Any]]).compactMap { $0["count"] as? Int }
    }

    @Test func `a dense run becomes a mixture that says the same, and is trained, evaluated and sampled`() throws {
        let dense = try train("dense")
        let out = scratch.file("start")
        let report = try run("upcycle", dense, "--experts", "4", "--out", out)
        #expect(try experts(report) == [4, 4])
        #expect(report["recipe"] as? String == "\(out)/recipe.yaml")
        for key in ["bytes_per_second", "copy_bytes_per_second", "seconds"] {
            #expect(try #require(report[key] as? Double) > 0, "\(key)")
        }
        try expectClose(logits(out), logits(dense).map(Double.init), within: 1e-5, "logits")
        let inspected = try run("inspect", out, "--verify")
        #expect(inspected["verified"] as? Bool == true && inspected["moe_layers"] as? [Int] == [1, 3])
        #expect(inspected["parameters"] as? Int == report["parameters"] as? Int)
        // Its recipe begins a run with these weights: the first loss is near the dense run's last.
        let recipe = "\(out)/recipe.yaml"
        let settings = ["--set", "training.steps=3", "--set", "training.optimizer.learning_rate=0.0001"]
        let trained = try CLI.run(["train", recipe, "--out", scratch.file("moe")] + settings)
        #expect(trained.status == 0, "\(trained.errors)")
        let losses = try metrics("moe")
        let before = try metrics("dense")
        let (first, last) = (try #require(losses.first), try #require(before.last))
        #expect(abs(first - last) < 0.1 * last && losses.count == 3, "\(first) after \(last)")
        // A resumed run does not ask for them again.
        try FileManager.default.removeItem(atPath: "\(out)/model.safetensors")
        let kept = try #require(textFile(recipe))
        let moved = try scratch.write("kept.yaml", text: kept)
        let resumed = try CLI.run(
            ["train", moved, "--out", scratch.file("moe"), "--resume", "--set", "training.steps=4"]
                + settings.suffix(2))
        #expect(resumed.status == 0, "\(resumed.errors)")
        #expect(try metrics("moe").count == 4)
        let anew = try CLI.run(["train", moved, "--out", scratch.file("anew")])
        #expect(anew.status == 1 && anew.errors.contains("start"), "\(anew.errors)")
        let text = try run("generate", scratch.file("moe"), "--prompt", "The quick", "--max-tokens", "4")
        #expect((text["generations"] as? [Any])?.count == 1)
    }

    private func metrics(_ name: String) throws -> [Double] {
        let text = try #require(textFile("\(scratch.file(name))/metrics.jsonl"))
        return try text.split(separator: "\n").map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            return try #require(object?["loss"] as? Double)
        }
    }

    @Test func `two runs become one with the experts of both`() throws {
        let (one, two) = (try train("one", experts: 4), try train("two", experts: 3, seed: 2))
        let out = scratch.file("both")
        let report = try run("aggregate", one, two, "--out", out)
        #expect(try experts(report) == [7, 7])
        #expect((report["sources"] as? [String])?.count == 2)
        let recipe = try #require(textFile("\(out)/recipe.yaml"))
        #expect(recipe.contains("count: 7") && recipe.contains("start: \"\(out)\""))
        let trained = try CLI.run(
            ["train", "\(out)/recipe.yaml", "--out", scratch.file("further"), "--set", "training.steps=2"])
        #expect(trained.status == 0, "\(trained.errors)")
        let wide = try train("wide", experts: 4, ["--set", "model.experts.width=20"])
        try CLI.expectRefusal(
            ["aggregate", one, wide, "--out", scratch.file("none")], "feed_forward[1].width is 24", "20 in the second")
        try CLI.expectRefusal(["aggregate", one, two, "--out", out], out, "exists already")
        #expect(folderNames(scratch.path).filter { $0.hasPrefix("none") || $0.contains(".tmp-") }.isEmpty)
    }

    @Test func `experts are pruned by use, by what their routers learnt, and at random`() throws {
        let source = try train("source", experts: 4)
        let used = try run(
            "prune", source, "--by", "utilization", "--data", text, "--keep", "3", "--out", scratch.file("a"))
        #expect(try experts(used) == [3, 3])
        for layer in try #require(used["layers"] as? [[String: Any]]) {
            let scores = try #require(layer["scores"] as? [Double])
            let kept = try #require(layer["kept"] as? [Int])
            #expect(scores.count == 4 && abs(scores.reduce(0, +) - 1) < 1e-9)
            let least = try #require(kept.map { scores[$0] }.min())
            for expert in 0..<4 where !kept.contains(expert) { #expect(scores[expert] <= least) }
        }
        let grown = try train("source", experts: 4, ["--resume", "--set", "training.steps=8"])
        let earlier = "\(grown)/checkpoints/step-00000004"
        let learnt = try run(
            "prune", grown, "--by", "router-norm", "--base", earlier, "--keep-fraction", "0.625", "--out",
            scratch.file("b"))
        #expect(try experts(learnt).reduce(0, +) == 5)
        let random = try run(
            "prune", source, "--by", "random", "--seed", "3", "--keep", "2", "--out", scratch.file("c"))
        #expect(
            try experts(random) == [2, 2]
                && random["parameters"] as? Int == (try run("inspect", scratch.file("c")))["parameters"] as? Int)
        for name in ["a", "b", "c"] {
            let result = try run("eval", scratch.file(name), "--data", text, "--max-tokens", "200")
            #expect(try #require(result["nats_per_token"] as? Double).isFinite)
        }
        // What was pruned goes on training, and is pruned again.
        let trained = try CLI.run(
            ["train", "\(scratch.file("b"))/recipe.yaml", "--out", scratch.file("d"), "--set", "training.steps=1"])
        #expect(trained.status == 0, "\(trained.errors)")
        let twice = try run("prune", scratch.file("a"), "--by", "random", "--keep", "2", "--out", scratch.file("e"))
        #expect(try experts(twice) == [2, 2])
    }

    @Test func `a Hugging Face model is pruned into a checkpoint`() throws {
        let source = try goldenFolder("mixtral")
        let report = try run("prune", source, "--by", "random", "--keep", "2", "--out", scratch.file("small"))
        #expect(report["recipe"] is NSNull)
        let inspected = try run("inspect", scratch.file("small"), "--verify")
        #expect(inspected["kind"] as? String == "apus")
        #expect(try logits(scratch.file("small")).allSatisfy(\.isFinite))
    }

    @Test func `what cannot be done is one line before anything is written`() throws {
        let (dense, source) = (try train("dense"), try train("source", experts: 4))
        let out = scratch.file("out")
        try CLI.expectRefusal(
            ["upcycle", source, "--experts", "4", "--layers", "1", "--out", out], "layer 1", "already")
        try CLI.expectRefusal(["upcycle", dense, "--experts", "4", "--layers", "9", "--out", out], "no layer 9")
        try CLI.expectRefusal(
            ["upcycle", dense, "--experts", "2", "--top-k", "3", "--out", out], "choices", "from 1 to all 2 experts")
        try CLI.expectRefusal(
            ["prune", source, "--by", "random", "--keep", "1", "--out", out], "layer 1 would keep 1 expert",
            "at least 2")
        // Refused before the data is opened, which is not there.
        try CLI.expectRefusal(
            ["prune", source, "--by", "utilization", "--data", "nothing", "--keep-fraction", "0.3", "--out", out],
            "2 of 8 experts", "at least 0.5")
        try CLI.expectRefusal(["prune", dense, "--by", "random", "--keep", "2", "--out", out], "no mixture of experts")
        try CLI.expectRefusal(
            ["prune", source, "--by", "router-norm", "--base", dense, "--keep", "2", "--out", out],
            "cannot have begun as")
        try CLI.expectRefusal(["aggregate", dense, dense, "--out", out], "no mixture of experts")
        for arguments in [["--keep", "2", "--keep-fraction", "0.5"], [], ["--keep", "2", "--base", dense]] {
            let result = try CLI.run(["prune", source, "--by", "random", "--out", out] + arguments)
            #expect(result.status == 64, "\(result.errors)")
        }
        let top = try CLI.run(["upcycle", dense, "--experts", "2", "--top-k", "1", "--out", out])
        #expect(top.status == 0 && top.errors.contains("only the routers' own losses"), "\(top.errors)")
    }
}
