/// The rank that the others wait for.
public struct StragglerReport: Sendable, Equatable, CustomStringConvertible {
    /// Its rank in the world.
    public let rank: Int
    /// How much longer the others wait in a call than it does, on average.
    public let lag: Duration
    /// The part of the time that the others lose by it.
    public let share: Double
    /// For how long it has been the slowest.
    public let since: Duration

    /// One line: `rank 3 is the slowest: the others wait 12.3 ms longer in each call (18 % of the time), for 42 s`.
    public var description: String {
        let tenths = (lag.microseconds + 50) / 100
        return """
            rank \(rank) is the slowest: the others wait \(tenths / 10).\(tenths % 10) ms longer in each call \
            (\(Int(share * 100)) % of the time), for \(since.components.seconds) s
            """
    }
}

/// Finds the slowest rank from how long each has waited: who is late itself waits least.
struct StragglerRecord {
    private struct Sum {
        var completed = 0
        var waited = Duration.zero
    }

    private var latest: [Sum]
    private var atStart: [Sum]
    private var windowStart: ContinuousClock.Instant
    private var slowest: (rank: Int, since: ContinuousClock.Instant)?
    private(set) var report: StragglerReport?

    /// Waits are compared over windows of this length.
    static let window = Duration.seconds(2)
    /// The part of the time that the others must lose before a rank is called slow.
    static let threshold = 0.05

    init(size: Int, now: ContinuousClock.Instant) {
        latest = Array(repeating: Sum(), count: size)
        atStart = latest
        windowStart = now
    }

    /// Takes note of a rank's sums: calls that are over, and the time spent in them.
    mutating func note(_ rank: Int, completed: Int, waited: Duration, at now: ContinuousClock.Instant) {
        latest[rank] = Sum(completed: completed, waited: waited)
        let length = windowStart.duration(to: now)
        guard length >= StragglerRecord.window else { return }
        conclude(length, now)
        atStart = latest
        windowStart = now
    }

    private mutating func conclude(_ length: Duration, _ now: ContinuousClock.Instant) {
        let waits = latest.indices.map { rank -> Duration? in
            let calls = latest[rank].completed - atStart[rank].completed
            return calls > 0 ? (latest[rank].waited - atStart[rank].waited) / calls : nil
        }
        let known = waits.indices.compactMap { rank in waits[rank].map { (rank: rank, wait: $0) } }
        guard known.count > 1, let least = known.min(by: { $0.wait < $1.wait }) else { return clear() }
        let others = known.filter { $0.rank != least.rank }.map(\.wait).reduce(.zero, +) / (known.count - 1)
        let calls = latest[least.rank].completed - atStart[least.rank].completed
        let share = (others - least.wait) * calls / length
        guard share >= StragglerRecord.threshold else { return clear() }
        if slowest?.rank != least.rank { slowest = (least.rank, windowStart) }
        report = StragglerReport(
            rank: least.rank, lag: others - least.wait, share: min(share, 1),
            since: (slowest?.since ?? now).duration(to: now))
    }

    private mutating func clear() {
        slowest = nil
        report = nil
    }
}
