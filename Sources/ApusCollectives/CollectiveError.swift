public import ApusTensor

/// What can go wrong between ranks.
public enum CollectiveError: Error, Sendable, Equatable {
    /// Not every rank came in time: the call that waited, for how long, and who is missing.
    case timeout(CollectiveCall, after: Duration, missing: [MissingRank])
    /// Two ranks called different operations, or sizes, under the same number.
    case mismatch(CollectiveCall, CollectiveCall, detail: String?)
    /// The communicator moves host memory, and a tensor is elsewhere.
    case notHostMemory(communicator: String, operation: OperationSignature, device: Device)
    /// Ranks ended or stopped answering, and a call that waits for them, if one was known.
    case lost([MissingRank], waiting: CollectiveCall?)
    /// The communicator was ended by a failure elsewhere, or on purpose.
    case aborted(communicator: String, reason: String)
}

/// A rank that did not come, and where it was last seen.
public struct MissingRank: Sendable, Equatable {
    /// Its rank in the world.
    public let rank: Int
    /// Its latest call of all; `nil` when it has made none.
    public let lastCall: CollectiveCall?
    /// What is known of its process.
    public var condition = Condition.running

    /// What a watchdog knows of a process.
    public enum Condition: Sendable, Equatable {
        /// Nothing is wrong with it.
        case running
        /// It ended without leaving the world.
        case ended
        /// It has not given a sign of life for this long: stopped, or its machine out of reach.
        case silent(Duration)
        /// It left the world at the end of its program.
        case left
    }

    init(rank: Int, lastCall: CollectiveCall?, condition: Condition = .running) {
        self.rank = rank
        self.lastCall = lastCall
        self.condition = condition
    }
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
        case .lost(let ranks, let waiting):
            let words = ranks.map { "rank \($0.rank) \($0.fate), \($0.whereabouts)" }.joined(separator: "; ")
            return """
                lost: \(words)\(waiting.map { "; rank \($0.rank) waits in \($0)" } ?? ""). \
                All ranks end; look first at the lost rank's own messages and its machine's memory.
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
    fileprivate var whereabouts: String {
        let place = lastCall.map { "last seen in \($0)" } ?? "no call so far"
        return switch condition {
        case .left: "left the world, \(place)"
        default: place
        }
    }

    fileprivate var fate: String {
        switch condition {
        case .running: "is missing"
        case .ended: "ended without a word (killed, or crashed)"
        case .silent(let time):
            "has given no sign of life for \(time.components.seconds) s (stopped, or out of reach)"
        case .left: "is gone"
        }
    }
}

extension CollectiveCall {
    fileprivate var inLayer: String { layer.map { " in layer \($0)" } ?? "" }
}
