public import ApusExperts

/// What the parts of a pair of blocks take, in any one unit, and what of the exchanges is left to wait for.
///
/// The operations between the state that the experts read and the place where their results are joined hide the exchanges:
/// those before the experts compute the way there, those after it the way back.
public struct PairTimes: Sendable, Equatable {
    /// Attention of one block.
    public var attention: Double
    /// The dense layer of the first block.
    public var dense: Double
    /// The shared expert.
    public var shared: Double
    /// The routed experts.
    public var experts: Double
    /// The way to the experts.
    public var dispatch: Double
    /// The way back.
    public var combine: Double

    /// Times of the parts.
    public init(
        attention: Double, dense: Double, shared: Double, experts: Double, dispatch: Double, combine: Double
    ) {
        self.attention = attention
        self.dense = dense
        self.shared = shared
        self.experts = experts
        self.dispatch = dispatch
        self.combine = combine
    }

    /// The operations that can hide exchanges, in their order.
    public func window(_ position: ShortcutConfiguration.Position) -> [Double] {
        switch position {
        case .output: [attention, shared]
        case .attention: [dense, attention, shared]
        case .input: [attention, dense, attention, shared]
        }
    }

    /// How many operations of the window stand before the experts in a `Block`: all of the block before, and without one
    /// attention.
    public static func slot(_ position: ShortcutConfiguration.Position) -> Int {
        switch position {
        case .output, .attention: 1
        case .input: 2
        }
    }

    /// What of the exchanges nothing hides, with `slot` operations of the window before the experts.
    public func exposed(_ position: ShortcutConfiguration.Position, slot: Int) -> Double {
        let (before, after) = split(position, slot)
        return max(0, dispatch - before) + max(0, combine - after)
    }

    /// The slot of the paper's search: the smallest `|before - dispatch| + |after - combine|`, the first of equals.
    public func searchedSlot(_ position: ShortcutConfiguration.Position) -> Int {
        let distances = (0...window(position).count).map { slot in
            let (before, after) = split(position, slot)
            return abs(before - dispatch) + abs(after - combine)
        }
        return distances.indices.min { distances[$0] < distances[$1] } ?? 0
    }

    /// What the pair takes, with `slot` operations of the window before the experts.
    public func total(_ position: ShortcutConfiguration.Position, slot: Int) -> Double {
        2 * attention + dense + shared + experts + exposed(position, slot: slot)
    }

    /// What it takes when nothing is hidden.
    public var sumOfParts: Double { 2 * attention + dense + shared + experts + dispatch + combine }

    private func split(_ position: ShortcutConfiguration.Position, _ slot: Int) -> (before: Double, after: Double) {
        let window = window(position)
        return (window[..<slot].reduce(0, +), window[slot...].reduce(0, +))
    }
}
