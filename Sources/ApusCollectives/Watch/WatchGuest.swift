import Glibc

/// Any other rank's thread of the watch: tells rank 0 where this rank is, and decides alone when rank 0 is gone.
final class WatchGuest {
    private let watchdog: Watchdog
    private let connection: WatchConnection
    private var lastSign = ContinuousClock.now
    private var lastCall: CollectiveCall?
    private var hostHasLeft = false
    private var saidGoodbye = false
    private var hasConcluded = false
    /// When this process was last found to have been held up.
    private var heldUp: ContinuousClock.Instant?

    /// A late call that rank 0 has had this long to judge, and has not.
    private static let patience = Duration.seconds(3)

    init(_ watchdog: Watchdog, _ connection: WatchConnection) {
        self.watchdog = watchdog
        self.connection = connection
    }

    /// Works until the watch is stopped.
    func run() {
        let interval = watchdog.settings.interval
        var nextTick = ContinuousClock.now
        while !watchdog.isStopping {
            let wait = max(ContinuousClock.now.duration(to: nextTick), .zero)
            let sockets = connection.isClosed ? [] : [(connection.descriptor, connection.events)]
            _ = poll(
                [(watchdog.alarm.descriptor, Int16(POLLIN))] + sockets, milliseconds: wait.microseconds / 1000 + 1)
            watchdog.alarm.reset()
            let now = ContinuousClock.now
            if nextTick.duration(to: now) > Watchdog.delay {
                heldUp = now
                lastSign = now
            }
            connection.flush()
            for frame in connection.receive() { hear(frame, now) }
            for error in watchdog.takeReports() {
                connection.send(.failure(error))
                if connection.isClosed { conclude(error) }
            }
            if watchdog.isLeaving, !saidGoodbye {
                saidGoodbye = true
                connection.send(.leaving)
            }
            if now >= nextTick {
                nextTick = now + interval
                connection.send(.state(watchdog.summary(now)))
            }
            decide(now)
        }
        if !saidGoodbye { connection.send(.leaving) }
    }

    private func hear(_ frame: WatchFrame, _ now: ContinuousClock.Instant) {
        lastSign = now
        switch frame {
        case .alive(let call): lastCall = call ?? lastCall
        case .verdict(let error):
            guard !hasConcluded else { return }
            hasConcluded = true
            watchdog.conclude(error, isSpeaker: false)
        case .leaving: hostHasLeft = true
        case .hello, .state, .failure: break
        }
    }

    private func decide(_ now: ContinuousClock.Instant) {
        if watchdog.isLeaving || hostHasLeft || hasConcluded { return }
        let silence = lastSign.duration(to: now)
        let state = watchdog.summary(now)
        if connection.isClosed {
            conclude(lost(.ended, state))
        } else if silence > watchdog.settings.silence {
            conclude(lost(.silent(silence), state))
        } else if let late = state.overdue, late.call.time.duration(to: now) > late.timeout + WatchGuest.patience {
            conclude(.timeout(late.call, after: late.timeout, missing: []))
        }
    }

    private func lost(_ condition: MissingRank.Condition, _ state: RankState) -> CollectiveError {
        .lost([MissingRank(rank: 0, lastCall: lastCall, condition: condition)], waiting: state.waiting.first)
    }

    private func conclude(_ error: CollectiveError) {
        guard !hasConcluded else { return }
        hasConcluded = true
        // To whoever was stopped for long, the others have ended: they have said why.
        let wasStopped = heldUp.map { $0.duration(to: .now) < Watchdog.delay } ?? false
        watchdog.conclude(error, isSpeaker: !wasStopped && watchdog.claimSpeech())
    }
}
