import ApusExperts
import ApusTensor

/// What the MoE layers of one step did, read back to the host and added up over micro-batches.
public struct RoutingSummary: Sendable {
    /// One layer's loads.
    public struct Layer: Sendable {
        /// Global layer index.
        public let layer: Int
        /// (E): how often each expert was chosen, before dropping.
        public let choices: [Int]
        /// (E): rows each expert computed.
        public let rows: [Int]

        /// The share of the choices that each expert got; they sum to 1.
        public var shares: [Double] {
            let total = Double(max(choices.reduce(0, +), 1))
            return choices.map { Double($0) / total }
        }
        /// The most loaded expert's load over the mean: 1 when balanced.
        public var peakToMean: Double { LoadShape(shares).peakToMean }
        /// Entropy of the shares over that of even ones: 1 when balanced, 0 when one expert gets all.
        public var evenness: Double { LoadShape(shares).evenness }
    }

    /// The layers, in model order.
    public let layers: [Layer]
    /// Mean balance loss of the layers before its coefficient, of a dual shortcut's layer the sum of both states'; `nil` without MoE layers.
    public let balance: Double?
    /// Mean z-loss of the layers before its coefficient; `nil` when not asked for.
    public let z: Double?
    /// The share of all choices that was dropped.
    public let droppedFraction: Double
}

extension RoutingSummary {
    /// Adds up what the micro-batches of a step reported; all tensors are on the host.
    init(_ reported: [RoutingReport.Layer], pooled: [Tensor]) {
        var byLayer: [Int: (choices: [Int], rows: [Int])] = [:]
        var sums: [RouterLossKind: Double] = [:]
        for entry in reported {
            let experts = entry.rows.count
            var load =
                byLayer[entry.layer] ?? (Array(repeating: 0, count: experts), Array(repeating: 0, count: experts))
            for (index, count) in entry.choices.floats().enumerated() { load.choices[index % experts] += Int(count) }
            for (index, count) in entry.rows.array(of: Int32.self).enumerated() { load.rows[index] += Int(count) }
            byLayer[entry.layer] = load
            for (kind, value) in entry.losses { sums[kind, default: 0] += Double(value.floats()[0]) }
        }
        layers = byLayer.keys.sorted().map { index in
            Layer(layer: index, choices: byLayer[index]?.choices ?? [], rows: byLayer[index]?.rows ?? [])
        }
        let count = Double(max(layers.count, 1))
        balance =
            pooled.isEmpty
            ? sums[.balance].map { $0 / count } : pooled.reduce(0) { $0 + Double($1.floats()[0]) }
        z = sums[.z].map { $0 / count }
        let wanted = layers.reduce(0) { $0 + $1.choices.reduce(0, +) }
        let computed = layers.reduce(0) { $0 + $1.rows.reduce(0, +) }
        droppedFraction = wanted == 0 ? 0 : Double(wanted - computed) / Double(wanted)
    }
}
