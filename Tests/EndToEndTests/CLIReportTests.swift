import ApusTestSupport
import Foundation
import Testing

/// `apus report` as a user meets it.
@Suite struct CLIReportTests {
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    @Test func `a run gets a page in its folder and a table on the screen`() throws {
        try scratch.train()
        let result = try CLI.run(["report", "\(scratch.path)/run/"])
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
        #expect(result.output.contains("2 layers, width 32, 4 experts of 24, 2 for a token"))
        #expect(result.output.contains("8 of 8") && result.output.contains("report: \(scratch.path)/run/report.html"))
        let page = try #require(textFile("\(scratch.path)/run/report.html"))
        #expect(page.contains("<title>Run run</title>") && page.contains("\"layer\":1,\"experts\":4"))
        #expect(page.utf8.count < 200_000)
    }

    @Test func `several runs are one page, and their summaries one object`() throws {
        try scratch.train()
        try scratch.train(["--steps", "4"], out: "short", set: ["model.experts.count=3"])
        let folders = ["run", "short"].map { "\(scratch.path)/\($0)" }
        let result = try CLI.run(["report"] + folders + ["--json", "--out", "\(scratch.path)/both.html"])
        #expect(result.status == 0, "\(result.errors)")
        let runs = try #require(try result.object()["runs"] as? [[String: Any]])
        #expect(runs.map { $0["name"] as? String } == ["run", "short"])
        #expect(runs.map { $0["last_step"] as? Int } == [8, 4] && runs.map { $0["planned_steps"] as? Int } == [8, 4])
        let losses = try scratch.losses()
        let loss = try #require(runs[0]["loss"] as? Double)
        #expect(abs(loss - losses.reduce(0, +) / 8) < 1e-9)
        let heldOut = try scratch.metrics().compactMap { $0["held_out_loss"] as? Double }
        #expect(runs[0]["held_out_loss"] as? Double == heldOut.last)
        #expect(runs[0]["best_held_out_loss"] as? Double == heldOut.min())
        #expect(runs[0]["tokens"] as? Int == 8 * 4 * 32)
        let page = try #require(textFile("\(scratch.path)/both.html"))
        for name in ["run", "short"] { #expect(page.contains("\"name\":\"\(name)\"")) }
        let quiet = try CLI.run(["report", folders[0], "--json"])
        #expect(quiet.status == 0 && !scratch.names("run").contains("report.html"))
    }

    @Test func `metrics alone are enough, and what is missing is said`() throws {
        try scratch.train()
        try FileManager.default.removeItem(atPath: "\(scratch.path)/run/recipe.yaml")
        let result = try CLI.run(["report", "\(scratch.path)/run/metrics.jsonl"])
        #expect(result.status == 0 && result.errors.contains("recipe.yaml' is missing"), "\(result.errors)")
        #expect(scratch.names("run").contains("report.html"))
    }

    @Test func `what is no run is refused, and so is a broken line`() throws {
        try CLI.expectRefusal(["report", scratch.path], "'\(scratch.path)' holds no metrics.jsonl", "runs/")
        try FileManager.default.createDirectory(atPath: "\(scratch.path)/bad", withIntermediateDirectories: true)
        try scratch.write("bad/metrics.jsonl", Array("{\"step\": 1}\n{\"step\": 2,\n{\"step\": 3}\n".utf8))
        try CLI.expectRefusal(["report", "\(scratch.path)/bad"], "bad/metrics.jsonl', line 2: ")
    }
}
