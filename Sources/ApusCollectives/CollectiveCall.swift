public import ApusTensor

/// The part of an operation that must be the same on all ranks.
public struct OperationSignature: Sendable, Equatable, CustomStringConvertible {
    /// Which operation.
    public enum Kind: String, Sendable {
        /// ``CollectiveOperation/allReduce(_:_:into:)``
        case allReduce = "all-reduce"
        /// ``CollectiveOperation/reduceScatter(_:_:into:)``
        case reduceScatter = "reduce-scatter"
        /// ``CollectiveOperation/allGather(_:into:)``
        case allGather = "all-gather"
        /// ``CollectiveOperation/broadcast(_:root:)``
        case broadcast
        /// ``CollectiveOperation/allToAll(_:into:_:)`` without splits
        case allToAll = "all-to-all"
        /// ``CollectiveOperation/allToAll(_:into:_:)`` with splits
        case allToAllUneven = "uneven all-to-all"
        /// ``CollectiveOperation/send(_:to:)``
        case send
        /// ``CollectiveOperation/receive(_:from:)``
        case receive
        /// ``CollectiveOperation/barrier``
        case barrier
        /// ``Collective/split(name:color:key:timeout:)``
        case split
    }

    /// Which operation.
    public let kind: Kind
    /// The reduction, of those that reduce.
    public var reduction: Reduction?
    /// Element type, of those that move data.
    public var dtype: DType?
    /// Elements that each rank contributes; of an uneven all-to-all, elements of one row.
    public var elements: Int?
    /// The root of a broadcast.
    public var root: Int?
    /// What a split is called.
    public var label: String?

    init(kind: Kind, label: String? = nil) {
        self.kind = kind
        self.label = label
    }

    /// The signature of `operation`.
    public init(_ operation: CollectiveOperation) {
        switch operation {
        case .allReduce(let input, let reduction, _): self.init(kind: .allReduce, input, reduction: reduction)
        case .reduceScatter(let input, let reduction, _): self.init(kind: .reduceScatter, input, reduction: reduction)
        case .allGather(let input, _): self.init(kind: .allGather, input)
        case .broadcast(let tensor, let root):
            self.init(kind: .broadcast, tensor)
            self.root = root
        case .allToAll(let input, _, nil): self.init(kind: .allToAll, input)
        case .allToAll(let input, _, .some):
            self.init(kind: .allToAllUneven, input)
            elements = input.rowCount
        case .send(let tensor, _): self.init(kind: .send, tensor)
        case .receive(let tensor, _): self.init(kind: .receive, tensor)
        case .barrier: self.init(kind: .barrier)
        }
    }

    private init(kind: Kind, _ tensor: Tensor, reduction: Reduction? = nil) {
        self.init(kind: kind)
        self.reduction = reduction
        dtype = tensor.dtype
        elements = tensor.count
    }

    /// Whether two ranks with these signatures do the same thing.
    func agrees(with other: OperationSignature) -> Bool {
        let sides = [kind, other.kind]
        guard sides.contains(.send), sides.contains(.receive) else { return self == other }
        return dtype == other.dtype && elements == other.elements
    }

    /// For messages: `all-reduce (sum) of 4096 f32`.
    public var description: String {
        var text = kind.rawValue
        if let reduction { text += " (\(reduction.rawValue))" }
        if let elements, let dtype {
            text += kind == .allToAllUneven ? " of rows of \(elements) \(dtype)" : " of \(elements) \(dtype)"
        }
        if let root { text += " from root \(root)" }
        if let label { text += " '\(label)'" }
        return text
    }
}

/// What calls are numbered in: a communicator, or one direction between two of its ranks.
public struct Channel: Sendable, Hashable, CustomStringConvertible {
    /// The communicator's name.
    public let communicator: String
    /// Sender and receiver, of a point-to-point operation.
    public let pair: Pair?

    /// Two ranks of a communicator.
    public struct Pair: Sendable, Hashable {
        /// Who sends.
        public let source: Int
        /// Who receives.
        public let target: Int
    }

    /// For messages: `expert.0`, `world from rank 0 to rank 2`.
    public var description: String {
        guard let pair else { return communicator }
        return "\(communicator) from rank \(pair.source) to rank \(pair.target)"
    }
}

/// One rank's call of one operation: what a rank publishes before it waits.
public struct CollectiveCall: Sendable, Equatable, CustomStringConvertible {
    /// The caller's rank in the world.
    public let rank: Int
    /// Where the call is counted.
    public let channel: Channel
    /// The call's number on its channel, from 0.
    public let sequence: Int
    /// The operation.
    public let operation: OperationSignature
    /// The model's layer that asked, if it said so.
    public let layer: Int?
    /// When the call was made; of one that a device carries out behind other work, when the device came to it.
    public internal(set) var time: ContinuousClock.Instant

    /// For messages: `all-to-all of 64 f32, call 12 on expert.0, layer 3`.
    public var description: String {
        "\(operation), call \(sequence) on \(channel)" + (layer.map { ", layer \($0)" } ?? "")
    }
}
