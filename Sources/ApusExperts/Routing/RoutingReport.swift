public import ApusKernels
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

        /// The same on the host, as soon as ``waitUntilReady()`` has returned; returns at once.
        public func downloaded(by backend: any Backend) throws -> Layer {
            Layer(
                layer: layer, choices: try backend.download(choices), rows: try backend.download(rows),
                losses: try losses.mapValues(backend.download))
        }

        /// Waits for copies from a device.
        public func waitUntilReady() throws {
            for tensor in [choices, rows] + losses.values { try tensor.ready?.wait() }
        }
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
