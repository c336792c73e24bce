public import ApusTensor
import Synchronization

/// A communicator of one rank: every operation is a copy, complete when it returns.
public final class SingleRank: Collective {
    /// See ``Collective/name``.
    public let name: String
    /// See ``Collective/rank``.
    public let rank = 0
    /// See ``Collective/members``.
    public let members = [0]
    /// See ``Collective/timeout``.
    public let timeout: Duration
    private let state = Mutex(State())

    private struct State {
        var abortReason: String?
        var splits: [String: Int] = [:]
    }

    /// The world of one rank.
    public convenience init() { self.init(name: worldName, timeout: .seconds(60)) }

    private init(name: String, timeout: Duration) {
        self.name = name
        self.timeout = timeout
    }

    /// See ``Collective/start(_:after:layer:)``.
    public func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event {
        try checkNotAborted()
        _ = try operation.admitted(to: self)
        DataMovement.perform([operation])
        let event = Event()
        event.signal()
        return event
    }

    /// See ``Collective/split(name:color:key:timeout:)``.
    public func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        try checkNotAborted()
        let occurrence = state.withLock { state in
            state.splits[name, default: 0] += 1
            return state.splits[name, default: 1]
        }
        guard let color else { return nil }
        return SingleRank(
            name: partName(name, color: color, occurrence: occurrence), timeout: timeout ?? self.timeout)
    }

    /// See ``Collective/abort(reason:)``.
    public func abort(reason: String) { state.withLock { $0.abortReason = reason } }

    private func checkNotAborted() throws(CollectiveError) {
        if let reason = state.withLock({ $0.abortReason }) { throw .aborted(communicator: name, reason: reason) }
    }
}
