import ApusData
import ApusTestSupport
import Foundation
import Testing

/// Commands on a model that classifies images.
@Suite struct CLIVisionTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func quarters(_ name: String, _ count: Int, seed: UInt64) throws -> String {
        var generator = SeededGenerator(seed: seed)
        let labels = (0..<count).map { _ in Int.random(in: 0..<4, using: &generator) }
        let pixels = labels.flatMap { label in
            (0..<64).map { place -> UInt8 in
                let isBright = place / 32 == label / 2 && place % 8 / 4 == label % 2
                return UInt8.random(in: isBright ? 110...255 : 0...140, using: &generator)
            }
        }
        return try scratch.write(
            name, ImageSet.file(height: 8, width: 8, channels: 1, labels: labels, pixels: pixels))
    }

    /// A recipe of two layers over the images at `path`, the second as `mixture` says.
    private func recipe(_ name: String, _ path: String, mixture: String) throws -> String {
        try scratch.write(
            name,
            text: """
                model:
                  patches: {height: 8, width: 8, size: 4, classes: 4}
                  layers: 2
                  width: 32
                  heads: 2
                  norm: layer
                  activation: gelu
                  feed_forward_width: 64
                  experts: \(mixture)
                data: {path: \(path), held_out: 0.1}
                training: {steps: 120, batch: 32, routing_group: 32, optimizer: {learning_rate: 0.005}, precision: f32}
                """)
    }

    private func train(_ arguments: String...) throws {
        let result = try CLI.run(["train"] + arguments)
        #expect(result.status == 0, "\(result.errors)")
    }

    private func eval(_ model: String, _ images: String) throws -> (correct: Int, nats: Double) {
        let result = try CLI.run(["eval", model, "--data", images, "--json"])
        #expect(result.status == 0, "\(result.errors)")
        let report = try result.object()
        let correct = try #require(report["correct"] as? Int)
        #expect(report["images"] as? Int == 100)
        #expect(try #require(report["accuracy"] as? Double) == Double(correct) / 100)
        return (correct, try #require(report["nats_per_image"] as? Double))
    }

    @Test func `train, eval and inspect work on images, and text is refused`() throws {
        let path = try quarters("train.images", 400, seed: 1)
        let test = try quarters("test.images", 100, seed: 2)
        let run = scratch.file("run")
        let mixture =
            "{every: 2, count: 4, choices: 2, width: 32, bank: padded, "
            + "policy: {capacity: 1.05, minimum: 2, order: importance}}"
        try train(recipe("vision.yaml", path, mixture: mixture), "--out", run)
        let found = try eval(run, test)
        #expect(found.correct >= 97 && found.nats < 0.2)
        let inspected = try CLI.run(["inspect", run, "--verify"])
        #expect(inspected.output.contains("8 x 8 x 1, patches of 4 x 4, 4 classes"), "\(inspected.output)")
        let shown = try CLI.run(["eval", run, "--data", test])
        #expect(shown.output.contains("accuracy"))

        try CLI.expectRefusal(["generate", run, "--prompt", "a"], "classifies images")
        try CLI.expectRefusal(["generate", run, "--prompt-tokens", "1 2"], "classifies images")
        let tokens = try scratch.write("ids.json", text: "[[1, 2, 3]]")
        try CLI.expectRefusal(["eval", run, "--tokens", tokens], "classifies images")
        try CLI.expectRefusal(["eval", run, "--data", test, "--window", "4"], "--window is for text")
        try CLI.expectRefusal(["eval", run, "--data", tokens], "is no file of images")
    }

    @Test func `a dense encoder is upcycled, trained further, and pruned by the norms of its routers`() throws {
        let path = try quarters("train.images", 400, seed: 1)
        let test = try quarters("test.images", 100, seed: 2)
        let (dense, start, run, small) = (
            scratch.file("dense"), scratch.file("start"), scratch.file("run"), scratch.file("small")
        )
        try train(recipe("dense.yaml", path, mixture: "null"), "--out", dense)
        let upcycled = try CLI.run(["upcycle", dense, "--experts", "4", "--out", start])
        #expect(upcycled.status == 0, "\(upcycled.errors)")
        let (before, after) = (try eval(dense, test), try eval(start, test))
        #expect(before.correct == after.correct && abs(before.nats - after.nats) < 1e-4)
        try train(
            "\(start)/recipe.yaml", "--out", run, "--set", "training.steps=5",
            "--set", "training.optimizer.learning_rate=0.0002")
        let pruned = try CLI.run(["prune", run, "--by", "router-norm", "--base", start, "--keep", "2", "--out", small])
        #expect(pruned.status == 0, "\(pruned.errors)")
        #expect(try eval(small, test).correct >= 90)
        try CLI.expectRefusal(
            ["prune", run, "--by", "utilization", "--data", test, "--keep", "2", "--out", scratch.file("x")],
            "classifies images", "router-norm")
    }
}
