import ApusTensor

extension RunSummary {
    /// The figures as words, each with what it is: the rows of a table.
    public var rows: [(label: String, text: String)] {
        let missing = "–"
        let steps = plannedSteps.map { "\(grouped(lastStep)) of \(grouped($0))" } ?? grouped(lastStep)
        return [
            ("model", model ?? missing),
            ("parameters", parameters.map(millions) ?? missing),
            ("active for a token", activeParameters.map(millions) ?? missing),
            ("precision", precision ?? missing),
            ("steps", steps),
            ("tokens", whole(tokens).map(millions) ?? missing),
            ("loss, last \(RunSummary.lossWindow) steps", trainLoss.map { rounded($0, 4) } ?? missing),
            ("held-out loss, last", heldOutLoss.map { rounded($0, 4) } ?? missing),
            (
                "held-out loss, best",
                bestHeldOut.map { "\(rounded($0.value, 4)) at step \(grouped($0.step))" } ?? missing
            ),
            ("tokens per second", tokensPerSecond.flatMap(whole).map(grouped) ?? missing),
            ("time of steps", duration(seconds)),
            ("memory, most", peakBytes.flatMap(whole).map { formatBytes($0) } ?? missing),
            ("choices dropped", droppedFraction.map { "\(rounded(100 * $0, 2)) %" } ?? missing),
        ]
    }

    /// The nearest whole number; `nil` of a figure in the file that is far from what any run has.
    private func whole(_ value: Double) -> Int? { Int(exactly: value.rounded()) }

    private func millions(_ count: Int) -> String {
        switch count {
        case 10_000_000_000...: "\(rounded(Double(count) / 1e9, 1)) billion"
        case 1_000_000...: "\(rounded(Double(count) / 1e6, 2)) million"
        default: grouped(count)
        }
    }

    private func duration(_ seconds: Double) -> String {
        guard let total = whole(seconds) else { return "–" }
        let (hours, minutes, rest) = (total / 3600, total / 60 % 60, total % 60)
        return hours > 0 ? "\(hours) h \(minutes) min" : minutes > 0 ? "\(minutes) min \(rest) s" : "\(rest) s"
    }
}

/// A whole number with its digits in threes.
func grouped(_ value: Int) -> String {
    let digits = String(value.magnitude)
    var text = ""
    for (index, digit) in digits.enumerated() {
        if index > 0, (digits.count - index) % 3 == 0 { text += "," }
        text.append(digit)
    }
    return value < 0 ? "-" + text : text
}

/// `value` with `digits` digits after the point.
func rounded(_ value: Double, _ digits: Int) -> String {
    let scale = (0..<digits).reduce(1.0) { power, _ in 10 * power }
    guard value.isFinite, value.magnitude * scale < 9e15 else { return "\(value)" }
    let scaled = Int((value.magnitude * scale).rounded())
    let text = String(scaled)
    let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
    let sign = value < 0 && scaled > 0 ? "-" : ""
    return digits == 0 ? sign + padded : sign + padded.dropLast(digits) + "." + padded.suffix(digits)
}
