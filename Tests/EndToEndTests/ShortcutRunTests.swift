import ApusTestSupport
import Foundation
import Testing

/// Runs of models whose experts read an earlier state (ScMoE), as a user meets them.
@Suite struct ShortcutRunTests {
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    private static let pairs = [
        "model.layers=4", "model.feed_forward_width=40", "model.experts.every=2", "model.experts.choices=1",
    ]
    private static let shortcut =
        pairs + [
            "model.experts.shared_width=24", "model.experts.shared_combination=gate",
            "model.experts.shortcut.position=2",
        ]
    private static let dual =
        pairs + ["model.experts.shortcut.position=3", "model.experts.shortcut.dual=true", "model.experts.share=2"]

    @Test(arguments: [shortcut, dual], [false, true])
    func `a run that was stopped and resumed ends as one that was not`(_ keys: [String], _ checkpointing: Bool) throws {
        let keys = keys + ["training.checkpointing=\(checkpointing)"]
        try scratch.train(set: keys)
        try scratch.train(["--steps", "4"], out: "parts", set: keys)
        try scratch.train(["--resume", "--steps", "8"], out: "parts", set: keys)
        scratch.expectSameEnd("run", "parts")
        #expect(try scratch.losses() == scratch.losses("parts"))
    }

    @Test(arguments: [
        (shortcut, "shared expert 24 wide, added by a learned gate, reading the block before after attention"),
        (dual, "reading the input of the block before and its own, those of layer 1"),
    ])
    func `the other commands read its checkpoints`(_ keys: [String], _ words: String) throws {
        try scratch.train(set: keys)
        let run = "\(scratch.path)/run"
        let inspected = try CLI.run(["inspect", run, "--verify"])
        #expect(inspected.status == 0 && inspected.output.contains(words), "\(inspected.output)\(inspected.errors)")
        let report = try CLI.run(["report", run])
        #expect(report.status == 0 && report.output.contains("reading the"), "\(report.output)\(report.errors)")
        let evaluated = try CLI.run(["eval", run, "--data", "\(scratch.path)/text.txt", "--json"])
        #expect(evaluated.status == 0, "\(evaluated.errors)")
        let generated = try CLI.run(["generate", run, "--prompt", "swift ", "--max-tokens", "12"])
        #expect(generated.status == 0 && !generated.output.isEmpty, "\(generated.errors)")
    }

    @Test func `experts that two layers share cannot be pruned`() throws {
        try scratch.train(set: Self.dual)
        try CLI.expectRefusal(
            ["prune", "\(scratch.path)/run", "--by", "random", "--keep", "2", "--out", "\(scratch.path)/small"],
            "layer 3", "experts of layer 1")
    }

    @Test(arguments: [shortcut, dual])
    func `a layout is verified`(_ keys: [String]) throws {
        let result = try CLI.run(
            ["verify", "layout", "\(scratch.path)/tiny.yaml", "--expert", "2", "--data", "2"]
                + (keys + ["training.precision=f32"]).flatMap { ["--set", $0] })
        #expect(result.status == 0, "\(result.output)\(result.errors)")
    }

    @Test func `a position that no block stands before is refused before anything is written`() throws {
        try CLI.expectRefusal(
            scratch.arguments(set: ["model.experts.shortcut.position=2"]), "model.experts.shortcut.position is 2",
            "use position: 1")
        #expect(scratch.names("") == ["text.txt", "tiny.yaml"])
    }
}
