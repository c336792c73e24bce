import ApusTestSupport
import Foundation
import Testing

@testable import ApusTraining

private func metrics(step: Int = 3, loss: Double = 2.5) -> StepMetrics {
    StepMetrics(
        step: step, loss: loss, balanceLoss: 1.25, zLoss: nil, droppedFraction: 0.125, gradientNorm: 1e-9,
        learningRate: 3e-4, tokensPerSecond: 12345.6, mfu: 0.5, peakBytes: 3 << 20, stepSeconds: 0.25, heldOutLoss: nil,
        expertShares: [(0, [0.75, 0.25]), (12, [1, 0])])
}

@Suite struct StepMetricsTests {
    private func parsed(_ metrics: StepMetrics) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(metrics.json.utf8)) as? [String: Any])
    }

    @Test func `a line is one JSON object with every field`() throws {
        var metrics = metrics()
        #expect(!metrics.json.contains("\n"))
        let fields = try parsed(metrics)
        let names = [
            "step", "loss", "balance_loss", "z_loss", "dropped_fraction", "grad_norm", "lr", "tokens_per_second", "mfu",
            "peak_bytes", "step_seconds", "expert_share",
        ]
        #expect(Set(fields.keys) == Set(names))
        #expect(fields["step"] as? Int == 3)
        #expect(fields["loss"] as? Double == 2.5)
        #expect(fields["grad_norm"] as? Double == 1e-9)
        #expect(fields["peak_bytes"] as? Int == 3 << 20)
        #expect(fields["z_loss"] is NSNull)
        let shares = try #require(fields["expert_share"] as? [String: [Double]])
        #expect(shares == ["0": [0.75, 0.25], "12": [1, 0]])
        metrics.heldOutLoss = 2.25
        #expect(try parsed(metrics)["held_out_loss"] as? Double == 2.25)
    }

    @Test(arguments: [Double.nan, .infinity, -.infinity])
    func `numbers that JSON has not become null`(_ value: Double) throws {
        var metrics = metrics(loss: value)
        metrics.expertShares = [(0, [value])]
        let fields = try parsed(metrics)
        #expect(fields["loss"] is NSNull)
        #expect((fields["expert_share"] as? [String: [Any]])?["0"]?.first is NSNull)
    }

    @Test(arguments: [
        (1.25, 2, "1.25"), (-1.005, 1, "-1.0"), (0.999, 2, "1.00"), (-0.001, 2, "0.00"), (12, 0, "12"),
        (0.06, 1, "0.1"),
        (1e300, 2, "1e+300"), (.infinity, 1, "inf"),
    ])
    func `decimals are rounded`(_ value: Double, _ digits: Int, _ text: String) {
        #expect(decimal(value, digits) == text)
    }
}

@Suite struct MetricsFileTests {
    private func steps(_ path: String) throws -> [Int] {
        try String(decoding: fileBytes(path), as: UTF8.self).split(separator: "\n").map { line in
            let fields = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            return try #require(fields?["step"] as? Int)
        }
    }

    @Test func `lines are there as soon as their step is done`() throws {
        let scratch = try ScratchFolder()
        let file = try MetricsFile(path: "\(scratch.path)/metrics.jsonl", afterStep: 0)
        for step in 1...3 {
            try file.append(metrics(step: step))
            #expect(try steps(file.path) == Array(1...step))
        }
    }

    @Test func `resuming drops later steps and lines that were cut short`() throws {
        let scratch = try ScratchFolder()
        let path = "\(scratch.path)/metrics.jsonl"
        let lines = (1...12).map { metrics(step: $0).json }.joined(separator: "\n")
        for cut in [lines + "\n", lines, String(lines.dropLast(40)), lines + "\nrubbish\n\n", lines + "\n{\"step\": 5"]
        {
            try scratch.write("metrics.jsonl", cut.utf8)
            let file = try MetricsFile(path: path, afterStep: 9)
            try file.append(metrics(step: 10))
            #expect(try steps(path) == Array(1...10))
        }
        #expect(folderNames(scratch.path) == ["metrics.jsonl"])
        _ = try MetricsFile(path: path, afterStep: 0)
        #expect(try fileBytes(path).isEmpty)
    }

    @Test func `a file that cannot be written is told`() throws {
        let error = #expect(throws: MetricsFileError.self) {
            try MetricsFile(path: "/nonexistent/metrics.jsonl", afterStep: 0)
        }
        #expect(error?.description.contains("/nonexistent/metrics.jsonl") == true)
    }

    @Test func `a line that finds no room is told`() async throws {
        let scratch = try ScratchFolder()
        await #expect(processExitsWith: .success) { [path = scratch.path as String] in
            let file = try MetricsFile(path: "\(path)/metrics.jsonl", afterStep: 0)
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 1000, rlim_max: 1000)
            setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
            for step in 1...10 {
                do { try file.append(metrics(step: step)) } catch {
                    exit(error is MetricsFileError && step > 1 ? 0 : 2)
                }
            }
            exit(1)
        }
    }
}

@Suite struct ProgressLineTests {
    private let line = ProgressLine(steps: 100, every: 10)

    @Test(arguments: [
        (0.4, "0s"), (59.4, "59s"), (60, "1m0s"), (3599, "59m59s"), (3600, "1h0m"), (90_000, "25h0m"),
    ])
    func `the time left is short`(_ seconds: Double, _ text: String) {
        #expect(line.line(metrics(), remaining: seconds, worst: nil).contains("left \(text)  "))
    }

    @Test func `a line says what an eye looks for`() {
        let worst = RoutingSummary.Layer(layer: 7, choices: [6, 2], rows: [6, 2])
        var metrics = metrics()
        let text = line.line(metrics, remaining: 5, worst: worst)
        #expect(text == "step 3/100  loss 2.5000  12346 tokens/s  left 5s  3 MiB  layer 7 peak/mean 1.50")
        metrics.heldOutLoss = 2.75
        #expect(line.line(metrics, remaining: 5, worst: nil).contains("loss 2.5000  held-out 2.7500"))
    }

    /// What a step that is shown writes.
    private func shown(_ step: Int, heldOut: Double? = nil, every: Int = 10, columns: Int?) -> String {
        var metrics = metrics(step: step)
        metrics.heldOutLoss = heldOut
        return ProgressLine(steps: 100, every: every).text(metrics, remaining: 5, worst: nil, columns: columns)
    }

    @Test(arguments: [1, 2, 20, 40, 53, 54, 55, 200])
    func `on a terminal each step rewrites the line, which is cut to fit`(_ columns: Int) {
        let whole = "step 3/100  loss 2.5000  12346 tokens/s  left 5s  3 MiB"
        let text = shown(3, columns: columns)
        #expect(text == "\r\u{1B}[2K" + whole.prefix(max(columns - 1, 1)))
        #expect(text.contains("MiB") == (columns > whole.count))
    }

    @Test(arguments: [20, 200])
    func `on a terminal the last step and a held-out loss stay, whole`(_ columns: Int) {
        let last = "\r\u{1B}[2Kstep 100/100  loss 2.5000  12346 tokens/s  left 5s  3 MiB\n"
        #expect(shown(100, columns: columns) == last)
        let held = "\r\u{1B}[2Kstep 7/100  loss 2.5000  held-out 2.7500  12346 tokens/s  left 5s  3 MiB\n"
        #expect(shown(7, heldOut: 2.75, columns: columns) == held)
    }

    @Test func `in a file every tenth step has a plain line, and so have the last and a held-out loss`() {
        #expect(shown(3, columns: nil).isEmpty && shown(20, every: 0, columns: nil).isEmpty)
        for text in [shown(20, columns: nil), shown(100, every: 0, columns: nil), shown(7, heldOut: 2, columns: nil)] {
            #expect(text.hasPrefix("step ") && text.hasSuffix("3 MiB\n") && text.count { $0 == "\n" } == 1)
        }
    }

    @Test(arguments: [Double.nan, .infinity, 1e30])
    func `an estimate that is no time does not trap`(_ seconds: Double) {
        #expect(line.line(metrics(), remaining: seconds, worst: nil).contains("left "))
    }
}
