/// Watches expert loads while a run goes on, and warns when an expert dies or a layer collapses.
///
/// An expert is *dead* when no token has chosen it for ``window`` steps. A layer has *collapsed* when for as many steps
/// as many experts as a token goes through (K; for both states of a dual shortcut 2 K) together got more than
/// ``collapseShare`` of all choices, although there are more than twice as many.
/// Each is told once, and again only after it has recovered.
public struct LoadMonitor: Sendable {
    /// Steps that a state must last to be told.
    public static let window = 20
    /// The share of choices that K experts must exceed together.
    public static let collapseShare = 0.95

    private var idleSteps: [Int: [Int]] = [:]
    private var collapsedSteps: [Int: Int] = [:]

    /// A monitor that has seen nothing.
    public init() {}

    /// Takes in a step and returns the warnings that follow from it; `choices` is how many experts a token of a layer goes through.
    public mutating func observe(_ summary: RoutingSummary, choices: (Int) -> Int) -> [String] {
        summary.layers.flatMap { layer in
            deadExperts(layer) + collapse(layer, choices: choices(layer.layer))
        }
    }

    private mutating func deadExperts(_ layer: RoutingSummary.Layer) -> [String] {
        var idle = idleSteps[layer.layer] ?? Array(repeating: 0, count: layer.choices.count)
        for (expert, count) in layer.choices.enumerated() { idle[expert] = count == 0 ? idle[expert] + 1 : 0 }
        idleSteps[layer.layer] = idle
        let dead = idle.indices.filter { idle[$0] == LoadMonitor.window }
        guard !dead.isEmpty else { return [] }
        let names = dead.map(String.init).joined(separator: ", ")
        return [
            """
            layer \(layer.layer): expert \(names) got no token for \(LoadMonitor.window) steps; raise \
            model.experts.losses.balance, or lower training.optimizer.learning_rate
            """
        ]
    }

    private mutating func collapse(_ layer: RoutingSummary.Layer, choices: Int) -> [String] {
        let busiest = layer.shares.sorted(by: >).prefix(choices).reduce(0, +)
        let isCollapsed = layer.choices.count > 2 * choices && busiest > LoadMonitor.collapseShare
        collapsedSteps[layer.layer] = isCollapsed ? (collapsedSteps[layer.layer] ?? 0) + 1 : 0
        guard collapsedSteps[layer.layer] == LoadMonitor.window else { return [] }
        return [
            """
            layer \(layer.layer) has collapsed: \(choices) of \(layer.choices.count) experts get \
            \(decimal(100 * busiest, 1)) % of the tokens; raise model.experts.losses.balance and resume from an \
            earlier checkpoint
            """
        ]
    }
}
