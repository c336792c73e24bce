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
        try CLI.expectRefusal(["report", "\(scratch.path)/text.txt"], "text.txt' holds no metrics.jsonl")
        let run = "\(scratch.path)/bad"
        try CLI.expectRefusal(["report", run, run + "/"], "is given twice")
        try scratch.write("bad/metrics.jsonl", Array("{\"step\": 1}\n".utf8))
        let unwritable = try CLI.run(["report", run, "--out", "\(run)/no/such.html"])
        #expect(unwritable.status == 1 && unwritable.output.isEmpty, "\(unwritable.output)")
        #expect(unwritable.errors.contains("no/such.html"), "\(unwritable.errors)")
    }

    @Test func `figures far from any run's are shown as they are`() throws {
        try FileManager.default.createDirectory(atPath: "\(scratch.path)/odd", withIntermediateDirectories: true)
        let line = """
            {"step": 1, "loss": 1e308, "tokens_per_second": 1e400, "step_seconds": 1e300, "peak_bytes": 1e300, \
            "lr": -1e-320, "dropped_fraction": 1e18, "expert_share": {"0": [1e300, -1], "7": []}}

            """
        try scratch.write("odd/metrics.jsonl", Array(line.utf8))
        for options in [[], ["--json"]] {
            let result = try CLI.run(["report", "\(scratch.path)/odd"] + options)
            #expect(result.status == 0, "\(result.errors)")
        }
    }
}
