import ApusTensor
import Synchronization

/// What the communicators of one process share: the queue of the progress thread, the log of calls that the watchdog
/// reads, and whether the world has ended.
public final class MPIWorld: Sendable {
    /// This process's rank.
    public let rank: Int
    /// Number of ranks.
    public let size: Int
    /// Name and version of the library.
    public let library: String
    private let state = Mutex(State())
    private let doze = Doze()
    private let isAsleep = Atomic(false)
    private let watchdog = Mutex<Watchdog?>(nil)

    private struct State {
        var log = CallLog()
        var inbox: [MPIRequest] = []
        var contexts: UInt64 = 0
        var isStopping = false
        var hasStopped = false
    }

    init(rank: Int, size: Int, library: String) {
        self.rank = rank
        self.size = size
        self.library = library
    }

    /// Hands a call to the progress thread.
    func submit(_ request: MPIRequest) throws(CollectiveError) {
        try state.withLock { state throws(CollectiveError) in
            var request = request
            let event = request.event
            let call = request.call
            request.identity = try state.log.note(call, timeout: request.timeout, members: request.members) { error in
                event.signal(.failure(error.seen(by: call)))
            }
            state.inbox.append(request)
        }
        wake()
    }

    /// The contexts in use, a bit for each.
    var contextsInUse: UInt64 { state.withLock { $0.contexts } }

    /// The first context that is not in `used`; `nil` when there is none.
    func context(notIn used: UInt64) -> MPIContext? {
        let index = (~used).trailingZeroBitCount
        guard index < MPIContext.limit else { return nil }
        state.withLock { $0.contexts |= 1 << UInt64(index) }
        return MPIContext(index: index) { [weak self] index in
            self?.state.withLock { $0.contexts &= ~(1 << UInt64(index)) }
        }
    }

    /// Why the world has ended, if it has.
    public var failure: CollectiveError? { state.withLock { $0.log.failure } }

    /// Ends the world on all ranks, beginning with this one.
    func fail(_ error: CollectiveError) {
        end(error)
        watchdog.withLock { $0 }?.report(error)
    }

    /// Ends the world on this rank: whoever waits, or will call, gets `error` or learns that it is why all is over.
    ///
    /// The operations that were under way keep their tensors for ever: MPI may still write to them.
    func end(_ error: CollectiveError) {
        for fail in state.withLock({ $0.log.end(error) }) { fail(error) }
        wake()
    }

    private func wake() {
        if isAsleep.exchange(false, ordering: .sequentiallyConsistent) { doze.wake() }
    }
}

// The watchdog's side.
extension MPIWorld {
    /// What this rank tells of itself.
    func summary(at now: ContinuousClock.Instant) -> RankState { state.withLock { $0.log.summary(at: now) } }

    /// The watchdog that hears of failures here, once there is one.
    var attached: Watchdog? { watchdog.withLock { $0 } }

    /// Sets the watchdog that hears of failures here.
    func attach(_ watchdog: Watchdog) { self.watchdog.withLock { $0 = watchdog } }

    /// The rank that others wait for, as far as is known; on rank 0 only.
    public var straggler: StragglerReport? { watchdog.withLock { $0 }?.straggler }
}

// Calls that a device's library carries out.
extension MPIWorld: CallWatch {
    func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int], isQueued: Bool,
        fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> Int {
        try state.withLock { state throws(CollectiveError) in
            try state.log.note(call, timeout: timeout, members: members, isQueued: isQueued, fail: fail)
        }
    }

    func begin(_ identity: Int, at time: ContinuousClock.Instant) {
        state.withLock { $0.log.begin(identity, at: time) }
    }

    func complete(_ identity: Int) -> Bool { state.withLock { $0.log.complete(identity, isCounted: false) } }

    /// Rank 0's judge, which knows who is missing.
    var findsLateCalls: Bool { attached != nil }
}

// The progress thread's side.
extension MPIWorld {
    /// What has been submitted since the last time; `nil` when the world has ended and MPI must not be called again.
    func takeInbox() -> [MPIRequest]? {
        state.withLock { state in
            if state.log.failure != nil { return nil }
            if state.inbox.isEmpty { return [] }
            let requests = state.inbox
            state.inbox.removeAll(keepingCapacity: true)
            return requests
        }
    }

    /// Announces the end of a call, whose tensors the caller has let go of.
    func complete(_ identity: Int, _ event: Event) {
        // Whoever ended the world meanwhile has signalled the event.
        if state.withLock({ $0.log.complete(identity) }) { event.signal() }
    }

    /// Lets the progress thread sleep until there is something new, or for `time`.
    func sleep(for time: Duration?) {
        isAsleep.store(true, ordering: .sequentiallyConsistent)
        let isIdle = state.withLock { $0.inbox.isEmpty && $0.log.failure == nil && !$0.isStopping }
        if isIdle { doze.sleep(for: time) }
        isAsleep.store(false, ordering: .relaxed)
    }

    /// Asks the progress thread to close MPI, when no call is under way on any rank.
    func stop() {
        state.withLock { $0.isStopping = true }
        wake()
    }

    /// Whether the progress thread is to close MPI.
    var isStopping: Bool { state.withLock { $0.isStopping } }

    /// Whether MPI is closed.
    var hasStopped: Bool {
        get { state.withLock { $0.hasStopped } }
        set { state.withLock { $0.hasStopped = newValue } }
    }
}
