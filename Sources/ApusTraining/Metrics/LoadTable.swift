/// The table at the end of a run: how each layer's experts shared the tokens.
public struct LoadTable: Sendable {
    private var totals: [Int: (choices: [Int], rows: [Int])] = [:]

    /// A table without entries.
    public init() {}

    /// Adds a step.
    public mutating func add(_ summary: RoutingSummary) {
        for layer in summary.layers {
            guard let total = totals[layer.layer] else {
                totals[layer.layer] = (layer.choices, layer.rows)
                continue
            }
            totals[layer.layer] = (
                zip(total.choices, layer.choices).map(+), zip(total.rows, layer.rows).map(+)
            )
        }
    }

    /// The table as text, empty without MoE layers. Wide layers show their least and most loaded experts.
    public var text: String {
        guard !totals.isEmpty else { return "" }
        let header = "layer  peak/mean  evenness  dropped %  dead  share of tokens by expert, %"
        let lines = totals.keys.sorted().map { index -> String in
            let (choices, rows) = totals[index] ?? ([], [])
            let layer = RoutingSummary.Layer(layer: index, choices: choices, rows: rows)
            let wanted = choices.reduce(0, +)
            let dropped = wanted == 0 ? 0 : 100 * Double(wanted - rows.reduce(0, +)) / Double(wanted)
            return [
                padded(String(index), 5), padded(decimal(layer.peakToMean, 2), 9),
                padded(decimal(layer.evenness, 3), 8),
                padded(decimal(dropped, 2), 9), padded(String(choices.count { $0 == 0 }), 4), shares(layer.shares),
            ].joined(separator: "  ")
        }
        return ([header] + lines).joined(separator: "\n")
    }

    private func shares(_ shares: [Double]) -> String {
        let all = shares.map { decimal(100 * $0, 1) }
        guard all.count > 16 else { return all.joined(separator: " ") }
        let sorted = shares.sorted().map { decimal(100 * $0, 2) }
        return sorted.prefix(4).joined(separator: " ") + " ... " + sorted.suffix(4).joined(separator: " ")
    }

    private func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
}
