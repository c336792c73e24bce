public import ApusTensor

// Shape letters: E experts, G routing groups.

/// What the MoE layers of a pass tell about themselves: loads, drops and the values of their losses.
///
/// Layers add device tensors; nothing is read back until someone asks, so that collecting costs no synchronisation.
public final class RoutingReport {
    /// One layer's part.
    public struct Layer: Sendable {
        /// Global layer index.
        public let layer: Int
        /// (G, E) `f32`: choices of each expert before dropping.
        public let choices: Tensor
        /// (E) `i32`: rows that each expert computes.
        public let rows: Tensor
        /// (1) `f32` each: this pass's part of the losses, before their coefficients. A pooled balance loss is the
        /// model's, not a layer's.
        public let losses: [RouterLossKind: Tensor]

        /// All of its tensors, the losses in the order of their kinds.
        public var tensors: [Tensor] { [choices, rows] + kinds.compactMap { losses[$0] } }

        /// The same layer with other ``tensors``, such as their copies on the host.
        public func replacing(_ tensors: some Sequence<Tensor>) -> Layer {
            let tensors = Array(tensors)
            precondition(tensors.count == 2 + losses.count)
            return Layer(
                layer: layer, choices: tensors[0], rows: tensors[1],
                losses: Dictionary(uniqueKeysWithValues: zip(kinds, tensors.dropFirst(2))))
        }

        private var kinds: [RouterLossKind] { RouterLossKind.allCases.filter { losses[$0] != nil } }
    }

    /// Everything reported, in the order of the layers' passes.
    public private(set) var layers: [Layer] = []

    /// A report without entries.
    public init() {}

    func add(_ layer: Layer) { layers.append(layer) }
}

/// The kinds of router loss.
public enum RouterLossKind: String, Sendable, CaseIterable {
    /// Load balance.
    case balance
    /// The square of the logits' log-sum-exp.
    case z
    /// Coefficient of variation of the summed weights.
    case importance
}
