/// Why a layout was refused, and what would work.
public struct LayoutError: Error, Sendable, Equatable {
    /// The key at fault: `layout.tensor`, `training.batch`, or `ranks` for the number of ranks itself.
    public let key: String
    /// What is wrong with its value.
    public let reason: String
    /// A way out that keeps the layout, when there is one: `use training.batch 16`.
    public let alternative: String?
    /// The nearest layout that fits; `nil` when none does, because the model or the batch fits no layout at all.
    public let nearest: Layout?

    /// A refusal of the value of `key`.
    public init(key: String, reason: String, alternative: String?, nearest: Layout?) {
        self.key = key
        self.reason = reason
        self.alternative = alternative
        self.nearest = nearest
    }
}

extension LayoutError: CustomStringConvertible {
    /// One line: `layout.tensor is 3, which does not divide 16 ranks: the nearest layout that works is ...`.
    public var description: String {
        let layout = nearest.map { "the nearest layout that works is \($0)" }
        let ways = [layout, alternative].compactMap(\.self)
        return "\(key) \(reason): \(ways.isEmpty ? "no layout works" : ways.joined(separator: "; or "))"
    }
}
