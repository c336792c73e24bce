import ApusTestSupport
import Foundation
import Testing

/// Runs of models of which some layers convolve, and `apus probe`, as a user meets them.
@Suite struct HybridTests {
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    private static let keys = ["model.convolution={layers: [1], width: 3}"]

    @Test(arguments: [false, true])
    func `a run that was stopped and resumed ends as one that was not`(_ checkpointing: Bool) throws {
        let keys = Self.keys + ["training.checkpointing=\(checkpointing)"]
        try scratch.train(set: keys)
        try scratch.train(["--steps", "4"], out: "parts", set: keys)
        try scratch.train(["--resume", "--steps", "8"], out: "parts", set: keys)
        scratch.expectSameEnd("run", "parts")
        #expect(try scratch.losses() == scratch.losses("parts"))
    }

    @Test func `the other commands read its checkpoints`() throws {
        try scratch.train(set: Self.keys)
        let run = "\(scratch.path)/run"
        let inspected = try CLI.run(["inspect", run, "--verify"])
        #expect(
            inspected.status == 0 && inspected.output.contains("3 tokens wide in layers 1, which have no attention"),
            "\(inspected.output)\(inspected.errors)")
        #expect(try CLI.run(["inspect", run, "--json"]).object()["convolution_layers"] as? [Int] == [1])
        let evaluated = try CLI.run(["eval", run, "--data", "\(scratch.path)/text.txt", "--json"])
        #expect(evaluated.status == 0, "\(evaluated.errors)")
        let generated = try CLI.run(["generate", run, "--prompt", "swift ", "--max-tokens", "12"])
        #expect(generated.status == 0 && !generated.output.isEmpty, "\(generated.errors)")
        let exported = try CLI.run(["convert", "export", run, "--family", "mixtral", "--out", "\(scratch.path)/other"])
        #expect(
            exported.status == 1 && exported.output.isEmpty
                && exported.errors.contains("error: 'convolution' is in layers [1]"), "\(exported.errors)")
    }

    @Test func `a layout is verified`() throws {
        let result = try CLI.run(
            ["verify", "layout", "\(scratch.path)/tiny.yaml", "--tensor", "2", "--data", "2"]
                + (Self.keys + ["training.precision=f32"]).flatMap { ["--set", $0] })
        #expect(result.status == 0, "\(result.output)\(result.errors)")
    }

    @Test func `a layer that is not there is refused before anything is written`() throws {
        try CLI.expectRefusal(
            scratch.arguments(set: ["model.convolution={layers: [2]}"]), "model.convolution.layers names layer 2",
            "use 0 to 1")
        #expect(scratch.names("") == ["text.txt", "tiny.yaml"])
    }

    // MARK: apus probe

    private func probe(_ more: [String]) throws -> CLI.Result {
        try CLI.run(["probe", "--steps", "3", "--batch", "2", "--length", "16", "--symbols", "8"] + more)
    }

    @Test func `models are compared on every task, with the same figures each time`() throws {
        try scratch.write(
            "hybrid.yaml",
            Array(
                (textFile("\(scratch.path)/tiny.yaml") ?? "")
                    .replacingOccurrences(of: "  heads: 2", with: "  heads: 2\n  convolution: {layers: [0]}").utf8))
        let recipes = ["tiny", "hybrid"].map { "\(scratch.path)/\($0).yaml" }
        let result = try probe(recipes + ["--json"])
        let models = try #require(try result.object()["models"] as? [[String: Any]])
        #expect(models.map { $0["name"] as? String } == recipes)
        for model in models {
            let tasks = try #require(model["tasks"] as? [[String: Any]])
            #expect(tasks.map { $0["task"] as? String } == ["recall", "memorise", "compress", "copy"])
            for task in tasks {
                let accuracy = try #require(task["accuracy"] as? Double)
                #expect((0...1).contains(accuracy) && task["loss"] is Double && task["chance"] is Double)
            }
        }
        #expect(models[0]["parameters"] as? Int != models[1]["parameters"] as? Int)
        #expect(try probe(recipes + ["--json"]).output == result.output)
        #expect(try probe(recipes + ["--json", "--seed", "9"]).output != result.output)
        let table = try probe([recipes[0], "--task", "copy"])
        #expect(table.status == 0 && table.output.hasPrefix("model"), "\(table.errors)")
        let lines = table.output.split(separator: "\n")
        #expect(lines.count == 3 && lines[0].hasSuffix("copy") && lines[2].hasSuffix("12.5 %"))
    }

    @Test func `what cannot be probed is refused`() throws {
        let recipe = "\(scratch.path)/tiny.yaml"
        try CLI.expectRefusal(["probe", recipe, "--length", "4"], "length is 4", "from 8")
        try CLI.expectRefusal(["probe", recipe, "--learning-rate", "0"], "learning rate is 0")
        try CLI.expectRefusal(["probe", "--preset", "no-such-model"], "no-such-model")
        try CLI.expectRefusal(["probe", recipe, "--set", "model.convolution={layers: [7]}"], "names layer 7")
        for arguments in [["probe"], ["probe", recipe, "--task", "sums"], ["probe", recipe, "--threads", "0"]] {
            let result = try CLI.run(arguments)
            #expect(result.status == 64 && result.output.isEmpty, "\(arguments): \(result.errors)")
        }
    }
}
