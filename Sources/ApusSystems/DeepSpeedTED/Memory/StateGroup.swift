public import ApusNN
import ApusTensor

// Shape letters: N ranks that hold the same parameters.

/// Parameters of one rank that share a buffer: how many elements, of what types, and who else holds them.
public struct StateGroup: Sendable, Equatable {
    /// What reads them.
    public let role: ParameterRole
    /// Whether weight decay applies.
    public let decays: Bool
    /// Elements of each part whose gradients are one buffer, padding included, so that N ranks have equal shares.
    public let parts: [Int]
    /// N.
    public let holders: Int
    /// Ranks that divide the optimizer's state among them: N under ZeRO, else 1.
    public let owners: Int
    /// Types of weights, gradients and moments.
    public let precision: Precision

    /// Shares of a buffer begin at multiples of this many elements.
    static let unit = 64

    /// A group whose parts have `counts` elements.
    init(role: ParameterRole, decays: Bool, counts: [Int], holders: Int, isDivided: Bool, _ precision: Precision) {
        let unit = StateGroup.unit * holders
        self.role = role
        self.decays = decays
        parts = counts.map { holders > 1 ? ($0 + unit - 1) / unit * unit : $0 }
        self.holders = holders
        owners = isDivided ? holders : 1
        self.precision = precision.effective(for: role)
    }

    /// Bytes of one weight.
    public var weightBytes: Int { precision.modelType.byteCount }
    /// Bytes of one gradient.
    public var gradientBytes: Int { precision.gradientType.byteCount }
    /// Bytes of one parameter's moments, and of its `f32` weight where it has one.
    public var stateBytes: Int { 2 * precision.momentType.byteCount + (precision.hasMaster ? 4 : 0) }
    /// Elements that the rank holds.
    public var elements: Int { parts.reduce(0, +) }
    /// Elements whose state the rank owns.
    public var ownElements: Int { elements / owners }

    /// Elements from which on a layer's end is the end of a part; or an eighth of the group.
    static let fewest = 1 << 22

    /// The parts of a group of which layers have `counts` elements, one after the other.
    static func parts(of counts: [Int]) -> [Int] {
        let least = max(fewest, counts.reduce(0, +) / 8)
        var (parts, open) = ([Int](), 0)
        for count in counts {
            open += count
            guard open >= least else { continue }
            parts.append(open)
            open = 0
        }
        return open > 0 ? parts + [open] : parts
    }
}

/// Bytes of a rank's training state, by purpose.
public struct StateBytes: Sendable, Equatable {
    /// Weights in the type that products read.
    public var parameters: Int
    /// Gradients.
    public var gradients: Int
    /// Moments and `f32` weights.
    public var optimizerState: Int

    /// All of it.
    public var total: Int { parameters + gradients + optimizerState }

    /// These bytes.
    public init(parameters: Int, gradients: Int, optimizerState: Int) {
        self.parameters = parameters
        self.gradients = gradients
        self.optimizerState = optimizerState
    }
}
