public import ApusCollectives

/// One line of `metrics.jsonl`: what one step did.
public struct StepMetrics: Sendable {
    /// The step, from 1.
    public var step: Int
    /// Mean loss over target tokens, in nats.
    public var loss: Double
    /// Mean divergence from a teacher's distribution over target tokens, in nats at its temperature.
    public var divergence: Double?
    /// Mean balance loss of the MoE layers before its coefficient: 1 (K when pooled) is even.
    public var balanceLoss: Double?
    /// Mean z-loss before its coefficient.
    public var zLoss: Double?
    /// Share of choices dropped by capacity.
    public var droppedFraction: Double
    /// Norm of all gradients before clipping.
    public var gradientNorm: Double
    /// Learning rate of the step.
    public var learningRate: Double
    /// Tokens of the step over its seconds.
    public var tokensPerSecond: Double
    /// Model FLOPs over the processor's peak in the weights' type, both a second.
    public var mfu: Double
    /// Highest bytes of tensors so far.
    public var peakBytes: Int
    /// Seconds of the step, data included.
    public var stepSeconds: Double
    /// Mean loss on held-out text, in the steps that evaluate.
    public var heldOutLoss: Double?
    /// What the exchanges of the first rank with others cost in the step, by kind of communicator and operation; exposed
    /// seconds that are not known are `null`.
    public var collectives: [OperationTotals.Row] = []
    /// For each MoE layer its index and each expert's share of the choices.
    public var expertShares: [(layer: Int, shares: [Double])]

    /// One JSON object, without a newline. Numbers that JSON has not (NaN) become `null`.
    public var json: String {
        var fields = [
            "\"step\": \(step)", "\"loss\": \(number(loss))", "\"balance_loss\": \(number(balanceLoss))",
            "\"z_loss\": \(number(zLoss))", "\"dropped_fraction\": \(number(droppedFraction))",
            "\"grad_norm\": \(number(gradientNorm))", "\"lr\": \(number(learningRate))",
            "\"tokens_per_second\": \(number(tokensPerSecond))", "\"mfu\": \(number(mfu))",
            "\"peak_bytes\": \(peakBytes)", "\"step_seconds\": \(number(stepSeconds))",
        ]
        if let divergence { fields.append("\"divergence\": \(number(divergence))") }
        if let heldOutLoss { fields.append("\"held_out_loss\": \(number(heldOutLoss))") }
        if !collectives.isEmpty {
            let rows = collectives.map { row in
                """
                "\(row.communicator) \(row.operation)": {"calls": \(row.calls), "bytes": \(row.bytes), \
                "seconds": \(number(row.seconds)), "exposed_seconds": \(number(row.exposedSeconds))}
                """
            }
            fields.append("\"collectives\": {" + rows.joined(separator: ", ") + "}")
        }
        let experts = expertShares.map { entry in
            "\"\(entry.layer)\": [" + entry.shares.map { number($0, digits: 5) }.joined(separator: ", ") + "]"
        }
        fields.append("\"expert_share\": {" + experts.joined(separator: ", ") + "}")
        return "{" + fields.joined(separator: ", ") + "}"
    }

    private func number(_ value: Double?) -> String {
        guard let value, value.isFinite else { return "null" }
        return "\(value)"
    }

    private func number(_ value: Double, digits: Int) -> String { value.isFinite ? decimal(value, digits) : "null" }
}

/// `value` with `digits` digits after the point, rounded.
func decimal(_ value: Double, _ digits: Int) -> String {
    guard value.isFinite else { return "\(value)" }
    let scale = (0..<digits).reduce(1.0) { power, _ in power * 10 }
    guard abs(value) * scale < 9e15 else { return "\(value)" }
    let scaled = Int((abs(value) * scale).rounded())
    let text = String(scaled)
    let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
    let sign = value < 0 && scaled > 0 ? "-" : ""
    return digits == 0 ? sign + padded : sign + padded.dropLast(digits) + "." + padded.suffix(digits)
}
