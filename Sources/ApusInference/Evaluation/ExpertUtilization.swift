import ApusExperts
import ApusKernels
import ApusTensor

// Shape letters: E experts, G routing groups.

/// How often each expert of a model was chosen.
public struct ExpertUtilization: Sendable, Equatable {
    /// By layer, how many times each of its E experts was.
    public let choices: [Int: [Int]]

    /// Counts by layer.
    public init(choices: [Int: [Int]]) { self.choices = choices }
}

/// Adds up what passes report.
final class UtilizationCounter {
    private(set) var choices: [Int: [Int]] = [:]

    /// Adds a pass: the counts are (G, E) on the device.
    func add(_ report: RoutingReport, backend: any Backend) throws {
        for layer in report.layers {
            let experts = layer.choices.shape[1]
            var sums = choices[layer.layer] ?? Array(repeating: 0, count: experts)
            for (index, count) in try backend.floats(layer.choices).enumerated() { sums[index % experts] += Int(count) }
            choices[layer.layer] = sums
        }
    }
}
