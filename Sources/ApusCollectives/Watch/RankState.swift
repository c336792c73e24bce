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

/// What one process knows of its own calls.
struct CallLog {
    private struct Pending {
        let call: CollectiveCall
        let timeout: Duration
        let members: [Int]
        let event: EventSignal
    }

    typealias EventSignal = @Sendable (CollectiveError) -> Void

    private var pending: [Int: Pending] = [:]
    private var nextIdentity = 0
    private var recent: [Channel: [CollectiveCall]] = [:]
    private var state = RankState()

    /// Calls of a channel that are remembered: as many as may be under way at once.
    private static let memory = MessageTag.window
    /// A wait of this length is worth telling.
    static let longWait = Duration.milliseconds(500)

    /// Notes a call; `fail` ends it badly.
    ///
    /// - Returns: What ``complete(_:)`` knows it by.
    mutating func note(
        _ call: CollectiveCall, timeout: Duration, members: [Int], fail: @escaping EventSignal
    ) -> Int {
        nextIdentity += 1
        pending[nextIdentity] = Pending(call: call, timeout: timeout, members: members, event: fail)
        state.lastCall = call
        state.reached[call.channel] = call.sequence
        var calls = recent[call.channel, default: []]
        recent[call.channel] = nil
        if calls.count >= 2 * CallLog.memory { calls.removeFirst(CallLog.memory) }
        calls.append(call)
        recent[call.channel] = calls
        return nextIdentity
    }

    /// Notes the end of a call; `false` when it has been failed before. What a device does behind its other work is not
    /// counted: its time is no wait for other ranks.
    mutating func complete(_ identity: Int, isCounted: Bool = true) -> Bool {
        guard let entry = pending.removeValue(forKey: identity) else { return false }
        guard isCounted else { return true }
        state.completed += 1
        state.waited += entry.call.time.duration(to: .now)
        return true
    }

    /// Takes all that is pending: each call and how to fail it.
    mutating func abandon() -> [(call: CollectiveCall, fail: EventSignal)] {
        defer { pending = [:] }
        return pending.values.map { ($0.call, $0.event) }
    }

    /// What is to be told at `now`.
    func summary(at now: ContinuousClock.Instant) -> RankState {
        var summary = state
        var oldest: [Channel: Pending] = [:]
        for entry in pending.values where entry.call.sequence < oldest[entry.call.channel]?.call.sequence ?? .max {
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

    /// The earliest time at which a call is late.
    var firstDeadline: ContinuousClock.Instant? { pending.values.map { $0.call.time + $0.timeout }.min() }
}
