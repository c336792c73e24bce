import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusReport

/// Which lines of a metrics file count, and what is said of those that cannot be read.
@Suite struct MetricsHistoryTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func history(_ text: String) throws -> MetricsHistory {
        try MetricsHistory(path: try scratch.run("run", text) + "/metrics.jsonl")
    }

    private func losses(_ text: String) throws -> [Double?] {
        var losses: [Double?] = []
        try history(text).read { place, line in
            #expect(place == losses.count)
            losses.append(line[.loss])
        }
        return losses
    }

    @Test func `a line is read as it was written`() throws {
        var lines: [MetricsLine] = []
        let written = line(7, loss: 2.125, heldOut: 2.5, shares: [[0.75, 0.25], [1, 0]])
        try history(text([written])).read { lines.append($1) }
        let line = try #require(lines.first)
        #expect(line[.loss] == 2.125 && line[.heldOutLoss] == 2.5 && line[.zLoss] == nil)
        #expect(line[.peakBytes] == 1_048_576)
        #expect(line.loads.map(\.layer) == [0, 1] && line.loads.map(\.shares) == [[0.75, 0.25], [1, 0]])
    }

    @Test func `unknown keys are stepped over, whatever the order`() throws {
        #expect(try losses("{\"new\": {\"a\": [1, null]}, \"loss\": 3, \"step\": 4}\n") == [3])
    }

    @Test(arguments: [1, 10, 40, 150])
    func `a last line that was cut short is left out`(_ cut: Int) throws {
        let whole = text([line(1, loss: 1), line(2, loss: 2)])
        #expect(try losses(String(whole.dropLast(cut))) == (cut == 1 ? [1, 2] : [1]))
    }

    @Test(arguments: ["{\"step\": 2, \"loss\": 1.", "rubbish", "{\"loss\": 1}", "{\"step\": -1}", "{\"step\": 2} {}"])
    func `a broken line elsewhere is named by its number`(_ broken: String) throws {
        let error = #expect(throws: ReportError.self) { try losses(text([line(1), "", broken, line(3)])) }
        guard case .badLine(let path, 3, _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(path.hasSuffix("run/metrics.jsonl"))
        #expect(error?.description.contains("line 3: ") == true)
    }

    @Test func `steps that a resumed run takes again count as it took them`() throws {
        let lines = (1...4).map { line($0, loss: Double($0)) } + [line(2, loss: 20), line(3, loss: 30)]
        #expect(try losses(text(lines)) == [1, 20, 30])
        #expect(try history(text(lines)).steps == [1, 2, 3])
        #expect(try losses(text(lines + [line(1, loss: 10)])) == [10])
    }

    @Test func `a run without a step is told`() throws {
        let empty = ReportError.empty(path: "\(scratch.path)/run/metrics.jsonl")
        #expect(throws: empty) { try history("") }
        #expect(throws: empty) { try history("{\"step\": 1, \"lo") }
    }
}
