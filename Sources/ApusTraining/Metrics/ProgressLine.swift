import ApusTensor

/// What a run shows while it goes: one line that is rewritten on a terminal, plain lines when piped.
public struct ProgressLine {
    private let isTerminal: Bool
    private let every: Int
    private let steps: Int

    /// Progress over `steps` steps; without a terminal every `every`-th is printed, none when it is 0.
    public init(steps: Int, every: Int) {
        isTerminal = Console.isTerminal
        self.every = every
        self.steps = steps
    }

    /// Shows a step. `remaining` is an estimate in seconds.
    public func show(_ metrics: StepMetrics, remaining: Double, worst: RoutingSummary.Layer?) {
        let columns = isTerminal ? Console.columns : nil
        Console.write(text(metrics, remaining: remaining, worst: worst, columns: columns))
    }

    /// Prints a line of its own, above the progress on a terminal.
    public func note(_ text: String) { Console.write(isTerminal ? "\(Self.erase)\(text)\n" : "\(text)\n") }

    /// To the line's first column, and the line empty.
    private static let erase = "\r\u{1B}[2K"

    /// What showing a step writes to a terminal of `columns`, or, when it is `nil`, to a file or pipe.
    ///
    /// The last step's line and those with a held-out loss stay. Others are rewritten, which takes that they fit: of a
    /// line that wraps, only the last row would be.
    func text(_ metrics: StepMetrics, remaining: Double, worst: RoutingSummary.Layer?, columns: Int?) -> String {
        let line = line(metrics, remaining: remaining, worst: worst)
        let stays = metrics.heldOutLoss != nil || metrics.step == steps
        guard let columns else { return stays || every > 0 && metrics.step % every == 0 ? "\(line)\n" : "" }
        return Self.erase + (stays ? "\(line)\n" : String(line.prefix(max(columns - 1, 1))))
    }

    /// The line: step, loss, speed, time left, memory and the most uneven layer.
    func line(_ metrics: StepMetrics, remaining: Double, worst: RoutingSummary.Layer?) -> String {
        var parts = ["step \(metrics.step)/\(steps)", "loss \(decimal(metrics.loss, 4))"]
        if let heldOut = metrics.heldOutLoss { parts.append("held-out \(decimal(heldOut, 4))") }
        parts += [
            "\(decimal(metrics.tokensPerSecond, 0)) tokens/s", "left \(duration(remaining))",
            formatBytes(metrics.peakBytes),
        ]
        if let worst { parts.append("layer \(worst.layer) peak/mean \(decimal(worst.peakToMean, 2))") }
        return parts.joined(separator: "  ")
    }

    private func duration(_ seconds: Double) -> String {
        guard let total = Int(exactly: seconds.rounded()) else { return "?" }
        let (hours, minutes, rest) = (total / 3600, total / 60 % 60, total % 60)
        return hours > 0 ? "\(hours)h\(minutes)m" : minutes > 0 ? "\(minutes)m\(rest)s" : "\(rest)s"
    }
}
