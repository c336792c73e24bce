import ApusExperts

/// A setting of the routers that a resumed run has changed. It decides how they learn, not what the model computes.
public struct LearningChange: Sendable, Equatable {
    /// The recipe's key.
    public let key: String
    /// Its value when the checkpoint was saved.
    public let was: String
    /// Its value now.
    public let now: String
}

extension ModelConfiguration {
    /// This configuration with everything that only decides how routers learn taken from `other`, and what that
    /// changed, each change once however many layers share it.
    ///
    /// These are the coefficients and the scope of the router losses, noise, dropout, and the rate of a selection bias. Whether
    /// there is such a bias at all is part of what the model computes, and stays.
    package func learning(as other: ModelConfiguration) -> (ModelConfiguration, [LearningChange]) {
        var result = self
        var changes: [LearningChange] = []
        for (index, (own, wanted)) in zip(feedForward, other.feedForward).enumerated() {
            guard case .moe(var layer) = own, case .moe(let asked) = wanted else { continue }
            func take<Value: Equatable>(_ path: WritableKeyPath<MoEConfiguration, Value>, _ name: String) {
                let (was, now) = (layer[keyPath: path], asked[keyPath: path])
                guard was != now else { return }
                layer[keyPath: path] = now
                let change = LearningChange(key: "model.experts.\(name)", was: "\(was)", now: "\(now)")
                if !changes.contains(change) { changes.append(change) }
            }
            take(\.losses.balance, "losses.balance")
            take(\.losses.scope, "losses.scope")
            take(\.losses.z, "losses.z")
            take(\.losses.importance, "losses.importance")
            take(\.router.jitter, "router.jitter")
            take(\.router.gumbel, "router.gumbel")
            take(\.dropout, "dropout")
            if layer.router.biasRate > 0, asked.router.biasRate > 0 { take(\.router.biasRate, "router.bias_rate") }
            result.feedForward[index] = .moe(layer)
        }
        return (result, changes)
    }
}
