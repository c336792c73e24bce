import ApusModels
import ApusTensor
import Glibc
import Testing

@testable import ApusReport
@testable import ApusTraining

/// A folder of its own for one test, removed at the end of its life.
final class ReportScratch: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/apus-report-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
    }

    deinit { try? RunFolder.remove(path) }

    /// Writes the metrics of a run and returns its folder.
    @discardableResult
    func run(_ name: String, _ text: String) throws -> String {
        try RunFolder.create("\(path)/\(name)")
        try AtomicFile.write(text, to: "\(path)/\(name)/metrics.jsonl")
        return "\(path)/\(name)"
    }
}

/// A line as a run writes it.
func line(
    _ step: Int, loss: Double = 2, heldOut: Double? = nil, shares: [[Double]] = [[0.5, 0.25, 0.25, 0]]
) -> String {
    StepMetrics(
        step: step, loss: loss, balanceLoss: 1.25, zLoss: nil, droppedFraction: 0.125, gradientNorm: 1,
        learningRate: 1e-3, tokensPerSecond: 1000, mfu: 0.5, peakBytes: 1 << 20, stepSeconds: 2, heldOutLoss: heldOut,
        expertShares: shares.enumerated().map { ($0.offset, $0.element) }
    ).json
}

/// Lines with newlines behind them.
func text(_ lines: [String]) -> String { lines.map { $0 + "\n" }.joined() }
