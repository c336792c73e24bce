/// What a rank tells the watchdog of itself.
struct RankState: Sendable, Equatable {
    /// Its latest call of all.
    var lastCall: CollectiveCall?
    /// Its calls that are not over, the oldest of each channel.
    var waiting: [CollectiveCall] = []
    /// The number of its latest call on each channel.
    var reached: [Channel: Int] = [:]
    /// Its latest calls on the channels that it has waited in for long, to be held against other ranks'.
    var recent: [CollectiveCall] = []
    /// A call that has passed its time-out, and that time-out.
    var overdue: Overdue?
    /// Calls that are over, and the time from their start to their end, all added up.
    var completed = 0
    var waited = Duration.zero

    struct Overdue: Sendable, Equatable {
        let call: CollectiveCall
        let timeout: Duration
        let members: [Int]
    }
}

/// What one process knows of its own calls, until its world ends and then why.
///
/// A call of the host waits from the moment at which it is noted. One that is *queued* for a device waits for nobody until
/// the device comes to it: only then is it one of those that this rank is in, and only then does its time begin.
struct CallLog {
    private struct Pending {
        var call: CollectiveCall
        let timeout: Duration
        let members: [Int]
        let event: EventSignal
        var hasBegun: Bool
    }

    typealias EventSignal = @Sendable (CollectiveError) -> Void

    private var pending: [Int: Pending] = [:]
    private var nextIdentity = 0
    private var recent: [Channel: [CollectiveCall]] = [:]
    private var state = RankState()
    /// Why the world has ended, if it has.
    private(set) var failure: CollectiveError?

    /// Calls of a channel that are remembered: as many as may be under way at once.
    private static let memory = MessageTag.window
    /// A wait of this length is worth telling.
    static let longWait = Duration.milliseconds(500)

    /// Notes a call; `fail` ends it badly.
    ///
    /// - Returns: What ``complete(_:isCounted:)`` and ``begin(_:at:)`` know it by.
    /// - Throws: ``CollectiveError/aborted(communicator:reason:)`` when the world has ended.
    mutating func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int], isQueued: Bool = false,
        fail: @escaping EventSignal
    ) throws(CollectiveError) -> Int {
        if let failure { throw .aborted(communicator: call.channel.communicator, reason: failure.cause) }
        nextIdentity += 1
        pending[nextIdentity] = Pending(
            call: call, timeout: timeout, members: members, event: fail, hasBegun: !isQueued)
        if !isQueued { enter(call) }
        return nextIdentity
    }

    /// Notes that the device has come to a queued call.
    mutating func begin(_ identity: Int, at time: ContinuousClock.Instant) {
        guard var entry = pending[identity], !entry.hasBegun else { return }
        entry.hasBegun = true
        entry.call.time = time
        pending[identity] = entry
        enter(entry.call)
    }

    /// Takes note that this rank has come to a call.
    private mutating func enter(_ call: CollectiveCall) {
        state.lastCall = call
        // A call that ended unseen may be noted after the next one has begun.
        state.reached[call.channel] = max(state.reached[call.channel] ?? 0, call.sequence)
        var calls = recent[call.channel, default: []]
        recent[call.channel] = nil
        if calls.count >= 2 * CallLog.memory { calls.removeFirst(CallLog.memory) }
        calls.append(call)
        recent[call.channel] = calls
    }

    /// Notes the end of a call; `false` when it has been failed before. What a device does behind its other work is not
    /// counted: its time is no wait for other ranks.
    mutating func complete(_ identity: Int, isCounted: Bool = true) -> Bool {
        guard let entry = pending.removeValue(forKey: identity) else { return false }
        // Nobody looked while it was under way.
        if !entry.hasBegun { enter(entry.call) }
        guard isCounted else { return true }
        state.completed += 1
        state.waited += entry.call.time.duration(to: .now)
        return true
    }

    /// Ends the world, the first time with `error` as the reason.
    ///
    /// - Returns: How to fail each of the calls that were pending.
    mutating func end(_ error: CollectiveError) -> [EventSignal] {
        if failure == nil { failure = error }
        defer { pending = [:] }
        return pending.values.map(\.event)
    }

    /// What is to be told at `now`.
    func summary(at now: ContinuousClock.Instant) -> RankState {
        var summary = state
        var oldest: [Channel: Pending] = [:]
        for entry in pending.values
        where entry.hasBegun && entry.call.sequence < oldest[entry.call.channel]?.call.sequence ?? .max {
            oldest[entry.call.channel] = entry
        }
        let waiting = oldest.values.sorted { $0.call.time < $1.call.time }
        summary.waiting = waiting.map(\.call)
        if let first = waiting.first, first.call.time.duration(to: now) >= CallLog.longWait {
            summary.recent = waiting.flatMap { (recent[$0.call.channel] ?? []).suffix(CallLog.memory) }
        }
        if let late = waiting.first(where: { $0.call.time.duration(to: now) >= $0.timeout }) {
            summary.overdue = .init(call: late.call, timeout: late.timeout, members: late.members)
        }
        return summary
    }
}
