/// Which collectives' outputs a checkpointed block keeps from its first run, so that its second run takes them over
/// instead of calling the collective again: communication-aware checkpointing (DeepSpeed-TED section 5.2).
///
/// Keeping trades the memory of the outputs for a third of the block's calls.
public struct KeptOutputs: OptionSet, Sendable, Hashable {
    public let rawValue: Int

    /// A set of its bits.
    public init(rawValue: Int) { self.rawValue = rawValue }

    /// Rows that came by an all-to-all, and the counts that announced them.
    public static let allToAll = KeptOutputs(rawValue: 1)
    /// Sums over ranks: all-reduce and reduce-scatter.
    public static let reductions = KeptOutputs(rawValue: 2)
    /// Rows of all ranks. The largest of the outputs, and made again from a kept part by a fast group of ranks.
    public static let allGather = KeptOutputs(rawValue: 4)

    /// No call is made twice.
    public static let all: KeptOutputs = [.allToAll, .reductions, .allGather]
}

/// The outputs that one checkpointed block keeps, in the order in which its first run made them.
final class KeptValues {
    let kinds: KeptOutputs
    private let outer: KeptValues?
    private var values: [Any?] = []
    private var next = 0
    private(set) var isReplaying = false

    /// Values of a block inside a block that keeps `outer`: what that one keeps, this one must keep too, for it runs
    /// twice where the other runs once.
    init(_ kinds: KeptOutputs, inside outer: KeptValues?) {
        self.kinds = kinds.union(outer?.kinds ?? [])
        self.outer = outer
    }

    /// From now on values are handed out.
    func beginReplay() { isReplaying = true }

    func value<Value>(_ kind: KeptOutputs, _ make: () throws -> Value) rethrows -> Value {
        guard kinds.contains(kind) else { return try make() }
        guard isReplaying else {
            let value = try outer?.value(kind, make) ?? make()
            values.append(value)
            return value
        }
        guard next < values.count, let value = values[next].take() as? Value else {
            preconditionFailure("a checkpointed block exchanged other values when it ran again")
        }
        next += 1
        return value
    }
}

extension Tape {
    /// Whether outputs of exchanges are kept for a later run, so that nobody may write in their storage.
    public var keepsOutputs: Bool { kept.map { !$0.isReplaying } ?? false }

    /// The result of `make`, or that of the same call in the checkpointed block's first run when outputs of this kind
    /// are kept.
    ///
    /// For what ranks tell each other besides exchanges of variables, such as counts of rows.
    public func keeping<Value>(_ kind: KeptOutputs, _ make: () throws -> Value) rethrows -> Value {
        try kept?.value(kind, make) ?? make()
    }
}
