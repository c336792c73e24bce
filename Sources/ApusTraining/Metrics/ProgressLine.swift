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
        let text = line(metrics, remaining: remaining, worst: worst)
        if isTerminal {
            Console.write("\r\u{1B}[2K\(text)")
            if metrics.heldOutLoss != nil || metrics.step == steps { Console.write("\n") }
        } else if metrics.step == steps || metrics.heldOutLoss != nil || (every > 0 && metrics.step % every == 0) {
            Console.write("\(text)\n")
        }
    }

    /// Prints a line of its own, above the progress on a terminal.
    public func note(_ text: String) { Console.write(isTerminal ? "\r\u{1B}[2K\(text)\n" : "\(text)\n") }

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
