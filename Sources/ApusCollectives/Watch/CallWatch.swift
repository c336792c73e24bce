import Synchronization

/// Where calls are noted before they wait, so that whoever watches can tell which rank is missing, and which ends all of
/// them when the world ends.
protocol CallWatch: AnyObject, Sendable {
    /// Why the world has ended, if it has.
    var failure: CollectiveError? { get }
    /// Whether a call that passes its time-out is found without its library's help.
    var findsLateCalls: Bool { get }

    /// Notes a call, or one that `isQueued` for a device: see ``CallLog``. `fail` is called once, on any thread, if the
    /// world ends before the call is complete.
    ///
    /// - Returns: What ``begin(_:at:)`` and ``complete(_:)`` know it by.
    func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int], isQueued: Bool,
        fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> Int

    /// Notes that the device has come to a queued call.
    func begin(_ identity: Int, at time: ContinuousClock.Instant)

    /// Notes the end of a call; `false` when it has been failed before.
    func complete(_ identity: Int) -> Bool

    /// Ends the world on all ranks, beginning with this one.
    func fail(_ error: CollectiveError)
}

/// The calls of ranks over which nobody watches: a single one, or threads of one process.
final class CallBook: CallWatch {
    private let host: any Collective
    private let log = Mutex(CallLog())

    /// A book of calls of the world that `host` belongs to.
    init(_ host: any Collective) { self.host = host }

    var failure: CollectiveError? { log.withLock { $0.failure } }

    let findsLateCalls = false

    func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int], isQueued: Bool,
        fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> Int {
        try log.withLock { log throws(CollectiveError) in
            try log.note(call, timeout: timeout, members: members, isQueued: isQueued, fail: fail)
        }
    }

    func begin(_ identity: Int, at time: ContinuousClock.Instant) { log.withLock { $0.begin(identity, at: time) } }

    func complete(_ identity: Int) -> Bool { log.withLock { $0.complete(identity, isCounted: false) } }

    func fail(_ error: CollectiveError) {
        for fail in log.withLock({ $0.end(error) }) { fail(error) }
        host.abort(reason: error.cause)
    }
}
