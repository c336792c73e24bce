public import ApusTensor

/// What can go wrong between ranks.
public enum CollectiveError: Error, Sendable, Equatable {
    /// Not every rank came in time: the call that waited, for how long, and who is missing.
    case timeout(CollectiveCall, after: Duration, missing: [MissingRank])
    /// Two ranks called different operations, or sizes, under the same number.
    case mismatch(CollectiveCall, CollectiveCall, detail: String?)
    /// The communicator moves host memory, and a tensor is elsewhere.
    case notHostMemory(communicator: String, operation: OperationSignature, device: Device)
    /// The communicator was ended by a failure elsewhere, or on purpose.
    case aborted(communicator: String, reason: String)
}

/// A rank that did not come, and where it was last seen.
public struct MissingRank: Sendable, Equatable {
    /// Its rank in the world.
    public let rank: Int
    /// Its latest call of all; `nil` when it has made none.
    public let lastCall: CollectiveCall?
}

extension CollectiveError: CustomStringConvertible {
    /// One paragraph: which call, on which communicator, and which ranks are concerned.
    public var description: String {
        switch self {
        case .timeout(let call, let time, let missing):
            let ranks = missing.map { "rank \($0.rank) (\($0.whereabouts))" }.joined(separator: ", ")
            let absent = missing.isEmpty ? "all ranks have come, but the transfer did not end" : "missing: \(ranks)"
            return """
                time-out: rank \(call.rank) waited \(time) in \(call); \(absent). \
                Look first at a missing rank's own messages; raise the time-out if it is only slow.
                """
        case .mismatch(let first, let second, let detail):
            return """
                mismatch on \(first.channel), call \(first.sequence): rank \(first.rank) called \(first.operation)\
                \(first.inLayer), rank \(second.rank) called \(second.operation)\(second.inLayer)\
                \(detail.map { "; \($0)" } ?? ""). All ranks must make the same calls in the same order.
                """
        case .notHostMemory(let communicator, let operation, let device):
            return """
                \(communicator) cannot move a tensor of \(device) in \(operation): its ranks exchange host memory. \
                Download the tensor first, or compute with --device cpu.
                """
        case .aborted(let communicator, let reason):
            return "communicator \(communicator) was aborted: \(reason)"
        }
    }
}

extension MissingRank {
    fileprivate var whereabouts: String { lastCall.map { "last seen in \($0)" } ?? "no call so far" }
}

extension CollectiveCall {
    fileprivate var inLayer: String { layer.map { " in layer \($0)" } ?? "" }
}
