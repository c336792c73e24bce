import ApusTestSupport
import Glibc

@testable import ApusReport
@testable import ApusTraining

extension ScratchFolder {
    /// Writes the metrics of a run and returns its folder.
    @discardableResult
    func run(_ name: String, _ text: String) throws -> String {
        // Below folders that may be there already: a test writes a run again, or two runs of one name.
        let parts = name.split(separator: "/")
        for count in 1...parts.count { mkdir(file(parts[..<count].joined(separator: "/")), 0o755) }
        try write("\(name)/metrics.jsonl", text: text)
        return file(name)
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
