import Synchronization

/// Where calls are noted before they wait, so that whoever watches can tell which rank is missing, and which ends all of
/// them when the world ends.
protocol CallWatch: AnyObject, Sendable {
    /// Why the world has ended, if it has.
    var failure: CollectiveError? { get }
    /// Whether a call that passes its time-out is found without its library's help.
    var findsLateCalls: Bool { get }

    /// Notes a call. `fail` is called once, on any thread, if the world ends before the call is complete.
    ///
    /// - Returns: What ``complete(_:)`` knows it by.
    func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int],
        fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> Int

    /// Notes the end of a call; `false` when it has been failed before.
    func complete(_ identity: Int) -> Bool

    /// Ends the world on all ranks, beginning with this one.
    func fail(_ error: CollectiveError)
}

/// The calls of ranks over which nobody watches: a single one, or threads of one process.
final class CallBook: CallWatch {
    private let host: any Collective
    private let state = Mutex(State())

    private struct State {
        var log = CallLog()
        var failure: CollectiveError?
    }

    /// A book of calls of the world that `host` belongs to.
    init(_ host: any Collective) { self.host = host }

    var failure: CollectiveError? { state.withLock { $0.failure } }

    let findsLateCalls = false

    func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int],
        fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> Int {
        let outcome = state.withLock { state -> Result<Int, CollectiveError> in
            if let failure = state.failure {
                return .failure(.aborted(communicator: call.channel.communicator, reason: failure.cause))
            }
            return .success(state.log.note(call, timeout: timeout, members: members, fail: fail))
        }
        return try outcome.get()
    }

    func complete(_ identity: Int) -> Bool { state.withLock { $0.log.complete(identity, isCounted: false) } }

    func fail(_ error: CollectiveError) {
        let abandoned = state.withLock { state in
            if state.failure == nil { state.failure = error }
            return state.log.abandon()
        }
        for (_, fail) in abandoned { fail(error) }
        host.abort(reason: error.cause)
    }
}
