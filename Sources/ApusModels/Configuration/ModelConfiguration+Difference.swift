import ApusExperts

/// Where two configurations differ, by the keys of Apus' own `config.json`.
package struct ConfigurationDifference: Sendable, Equatable {
    /// The key from the top of the file: `feed_forward[3].width`.
    package let key: String
    /// Its value in the first.
    package let own: String
    /// Its value in the second.
    package let other: String
}

extension ModelConfiguration {
    /// The first key, in alphabetic order, whose value is another in `other`; `nil` for equal configurations.
    package func firstDifference(from other: ModelConfiguration) -> ConfigurationDifference? {
        jsonValue.firstDifference(from: other.jsonValue, key: "")
    }

    /// This configuration with everything taken from `other` that no result of a forward pass outside training depends
    /// on: how routers learn (``learning(as:)``), capacities, dropout, which bank computes the experts, and what weights
    /// began with.
    package func practice(as other: ModelConfiguration) -> ModelConfiguration {
        var result = learning(as: other).0
        (result.initialDeviation, result.initialScale) = (other.initialDeviation, other.initialScale)
        for (index, (own, wanted)) in zip(result.feedForward, other.feedForward).enumerated() {
            guard case .moe(var layer) = own, case .moe(let asked) = wanted else { continue }
            (layer.policy, layer.dropout) = (asked.policy, asked.dropout)
            (layer.bank, layer.blockSize) = (asked.bank, asked.blockSize)
            result.feedForward[index] = .moe(layer)
        }
        return result
    }

    /// This configuration with other numbers of experts, by layer; those of no layer named here stay.
    ///
    /// A balance loss that pools layers needs equal numbers; where they are none it is formed layer by layer.
    func withExperts(_ experts: [Int: Int]) -> ModelConfiguration {
        var result = self
        for (layer, count) in experts {
            guard case .moe(var moe) = feedForward[layer] else { continue }
            moe.experts = count
            result.feedForward[layer] = .moe(moe)
        }
        guard Set(result.mixtures.map(\.experts)).count > 1 else { return result }
        for layer in result.feedForward.indices {
            guard case .moe(var moe) = result.feedForward[layer] else { continue }
            moe.losses.scope = .layer
            result.feedForward[layer] = .moe(moe)
        }
        return result
    }

    /// The layers that are mixtures, ascending.
    package var mixtureLayers: [Int] { feedForward.indices.filter { moe(layer: $0) != nil } }
}

extension JSONValue {
    /// The first difference in the order of keys; lists of different lengths differ as such.
    fileprivate func firstDifference(from other: JSONValue, key: String) -> ConfigurationDifference? {
        switch (self, other) {
        case (.object(let own), .object(let theirs)):
            for name in Set(own.keys).union(theirs.keys).sorted() {
                let found = (own[name] ?? .null).firstDifference(
                    from: theirs[name] ?? .null, key: key.isEmpty ? name : "\(key).\(name)")
                if let found { return found }
            }
            return nil
        case (.array(let own), .array(let theirs)) where own.count == theirs.count:
            for (index, (one, two)) in zip(own, theirs).enumerated() {
                if let found = one.firstDifference(from: two, key: "\(key)[\(index)]") { return found }
            }
            return nil
        default:
            return self == other ? nil : ConfigurationDifference(key: key, own: shown, other: other.shown)
        }
    }
}
