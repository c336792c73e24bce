import ApusExperts
import ArgumentParser

// Shape letters: T tokens, E experts, K choices per token, C capacity.

/// A formulation of the experts to measure: `grouped`, `block-sparse`, `padded:FACTOR`, or `padded:all`, whose capacity
/// is the load of the fullest expert, so that nothing is dropped.
struct BankVariant: ExpressibleByArgument, Equatable, CustomStringConvertible {
    /// What computes.
    let kind: ExpertBankKind
    /// C over K T / E; 0 for as much as the fullest expert needs.
    let capacityFactor: Float

    static let grouped = BankVariant(kind: .grouped, capacityFactor: 0)

    private init(kind: ExpertBankKind, capacityFactor: Float) {
        self.kind = kind
        self.capacityFactor = capacityFactor
    }

    init?(argument: String) {
        let parts = argument.split(separator: ":", omittingEmptySubsequences: false)
        guard let kind = ExpertBankKind(rawValue: String(parts[0])) else { return nil }
        guard kind == .padded else {
            guard parts.count == 1 else { return nil }
            self.init(kind: kind, capacityFactor: 0)
            return
        }
        guard parts.count == 2 else { return nil }
        if parts[1] == "all" {
            self.init(kind: kind, capacityFactor: 0)
        } else if let factor = Float(parts[1]), factor > 0, factor <= 4096 {
            self.init(kind: kind, capacityFactor: factor)
        } else {
            return nil
        }
    }

    var description: String {
        guard kind == .padded else { return kind.rawValue }
        return "padded:" + (capacityFactor == 0 ? "all" : "\(capacityFactor)")
    }

    /// The token policy of this variant where the fullest expert gets `skew` times the mean.
    func policy(skew: Double) -> TokenPolicy {
        guard kind == .padded else { return .dropless }
        // A little more than the load, which the ceiling of the capacity may otherwise fall short of.
        let factor = capacityFactor == 0 ? Float(skew * 1.0001) : capacityFactor
        return .capacity(factor: factor, minimum: 1, order: .position)
    }
}
