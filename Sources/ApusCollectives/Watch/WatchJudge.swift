/// Rank 0's table of all ranks, and what follows from it: whether the world has to end, and whose doing it is.
///
/// It reads no clock and no network, so that every case can be tried.
struct WatchJudge {
    private struct Record {
        var state = RankState()
        var lastSign: ContinuousClock.Instant
        var condition = MissingRank.Condition.running
    }

    private var records: [Record]
    private var failure: CollectiveError?
    /// When a late call was first heard of.
    private var lateSince: ContinuousClock.Instant?
    private var stragglers: StragglerRecord
    /// How long a rank may give no sign of life.
    let silence: Duration

    /// After word of a late call, every rank may give its state once more, so that none is called missing that has just
    /// come; but not for longer than this.
    static let hearing = Duration.seconds(1)

    init(size: Int, silence: Duration, now: ContinuousClock.Instant) {
        records = Array(repeating: Record(lastSign: now), count: size)
        stragglers = StragglerRecord(size: size, now: now)
        self.silence = silence
    }

    /// Takes note of a rank's state.
    mutating func note(_ state: RankState, of rank: Int, at now: ContinuousClock.Instant) {
        records[rank].state = state
        records[rank].lastSign = now
        stragglers.note(rank, completed: state.completed, waited: state.waited, at: now)
        if state.overdue != nil, lateSince == nil { lateSince = now }
        if failure == nil { failure = mismatch(with: rank) }
    }

    /// Takes note of a failure that a rank has found.
    mutating func note(_ error: CollectiveError) { if failure == nil { failure = error } }

    /// Takes note that a rank's connection has closed.
    mutating func noteEnd(of rank: Int) { if records[rank].condition == .running { records[rank].condition = .ended } }

    /// Takes note that a rank has left.
    mutating func noteLeaving(of rank: Int) { records[rank].condition = .left }

    /// Forgives silence up to now: this process itself was held up.
    mutating func forgive(at now: ContinuousClock.Instant) {
        for rank in records.indices { records[rank].lastSign = now }
    }

    /// Whether all other ranks have left.
    var isAlone: Bool { records.dropFirst().allSatisfy { $0.condition != .running } }

    /// The slowest rank, if there is one.
    var straggler: StragglerReport? { stragglers.report }

    /// Why the world must end at `now`, if it must.
    func verdict(at now: ContinuousClock.Instant) -> CollectiveError? {
        if let failure { return failure }
        let ended = records.indices.filter { records[$0].condition == .ended }
        if !ended.isEmpty { return .lost(ended.map(missing), waiting: oldestWait(besides: ended)) }
        let silent = records.indices.filter {
            records[$0].condition == .running && records[$0].lastSign.duration(to: now) > silence
        }
        if !silent.isEmpty {
            let lost = silent.map { rank in
                MissingRank(
                    rank: rank, lastCall: records[rank].state.lastCall,
                    condition: .silent(records[rank].lastSign.duration(to: now)))
            }
            return .lost(lost, waiting: oldestWait(besides: silent))
        }
        return lateCall(at: now)
    }

    private func lateCall(at now: ContinuousClock.Instant) -> CollectiveError? {
        guard let lateSince else { return nil }
        let isHeard = records.allSatisfy { $0.condition != .running || $0.lastSign > lateSince }
        guard isHeard || lateSince.duration(to: now) > WatchJudge.hearing else { return nil }
        let late = records.compactMap(\.state.overdue).min { $0.call.time < $1.call.time }
        guard let late else { return nil }
        let missing = late.members
            .filter { records[$0].state.reached[late.call.channel, default: -1] < late.call.sequence }
            .map(missing)
        return .timeout(late.call, after: late.timeout, missing: missing)
    }

    private func missing(_ rank: Int) -> MissingRank {
        MissingRank(rank: rank, lastCall: records[rank].state.lastCall, condition: records[rank].condition)
    }

    private func oldestWait(besides ranks: [Int]) -> CollectiveCall? {
        records.indices.filter { !ranks.contains($0) }.flatMap { records[$0].state.waiting }.min { $0.time < $1.time }
    }

    /// The first call on a channel that `rank` and another remember differently.
    private func mismatch(with rank: Int) -> CollectiveError? {
        struct Place: Hashable {
            let channel: Channel
            let sequence: Int
        }
        let own = Dictionary(
            records[rank].state.recent.map { (Place(channel: $0.channel, sequence: $0.sequence), $0) }
        ) { first, _ in first }
        guard !own.isEmpty else { return nil }
        var found: (CollectiveCall, CollectiveCall)?
        for other in records.indices where other != rank {
            for call in records[other].state.recent {
                guard
                    let mine = own[Place(channel: call.channel, sequence: call.sequence)],
                    !mine.operation.agrees(with: call.operation), call.sequence < found?.0.sequence ?? .max
                else { continue }
                found = other < rank ? (call, mine) : (mine, call)
            }
        }
        return found.map { .mismatch($0.0, $0.1, detail: nil) }
    }
}
