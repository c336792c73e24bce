import ApusReport
import ApusTensor
import ArgumentParser

/// `apus report`: one page about one run or several.
struct Report: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write one HTML page about a run, or several beside each other.",
        discussion: """
            The page shows loss, learning rate, gradient norm, throughput, memory, and the load of every expert of every \
            layer over time. It is one file that needs no network. A run that is still going can be reported on.

            Example:
              apus report runs/quickstart
              apus report runs/a runs/b --out compared.html
            """)

    @Argument(help: "Folders of runs, or their metrics.jsonl.")
    var runs: [String]

    @Option(help: "The page (default: report.html in the run's folder; of several runs, here).")
    var out: String?

    @Flag(help: "Print the summaries as one JSON object, and write a page only to --out.")
    var json = false

    func run() throws {
        let page = try ReportPage(paths: runs)
        for run in page.runs {
            if let problem = run.recipeProblem { writeError("warning: \(run.name) is without its recipe: \(problem)") }
        }
        let path = out ?? (json ? nil : runs.count == 1 ? "\(folder(runs[0]))/report.html" : "report.html")
        if let path { try AtomicFile.write(page.html, to: path) }
        if json { return print(object(page.runs)) }
        print(text(page.runs))
        if let path { print("\nreport: \(path)") }
    }

    private func folder(_ run: String) -> String {
        guard run.hasSuffix(".jsonl") else { return run.count > 1 && run.hasSuffix("/") ? String(run.dropLast()) : run }
        let parts = run.split(separator: "/", omittingEmptySubsequences: false).dropLast()
        return parts.isEmpty ? "." : parts.joined(separator: "/")
    }

    private func text(_ reports: [RunReport]) -> String {
        let columns = reports.map(\.summary.rows)
        let head = ["run"] + reports.map(\.name)
        let rows = columns[0].indices.map { row in [columns[0][row].label] + columns.map { $0[row].text } }
        return table([head] + rows, leftColumns: reports.count + 1)
    }

    private func object(_ reports: [RunReport]) -> JSONText {
        .object([
            (
                "runs",
                .array(
                    reports.map { report in
                        let summary = report.summary
                        return .object([
                            ("name", .string(report.name)), ("model", .optional(summary.model) { .string($0) }),
                            ("parameters", .optional(summary.parameters) { .integer($0) }),
                            ("active_parameters", .optional(summary.activeParameters) { .integer($0) }),
                            ("precision", .optional(summary.precision) { .string($0) }),
                            ("last_step", .integer(summary.lastStep)),
                            ("planned_steps", .optional(summary.plannedSteps) { .integer($0) }),
                            ("tokens", .count(summary.tokens)),
                            ("loss", .optional(summary.trainLoss) { .number($0) }),
                            ("held_out_loss", .optional(summary.heldOutLoss) { .number($0) }),
                            ("best_held_out_loss", .optional(summary.bestHeldOut) { .number($0.value) }),
                            ("best_held_out_step", .optional(summary.bestHeldOut) { .integer($0.step) }),
                            ("tokens_per_second", .optional(summary.tokensPerSecond) { .number($0) }),
                            ("seconds", .number(summary.seconds)),
                            ("peak_bytes", .optional(summary.peakBytes) { .count($0) }),
                            ("dropped_fraction", .optional(summary.droppedFraction) { .number($0) }),
                        ])
                    })
            )
        ])
    }
}
