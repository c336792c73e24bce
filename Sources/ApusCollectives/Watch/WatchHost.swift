import Glibc

/// Rank 0's thread of the watch: hears all ranks, judges, and tells the verdict.
final class WatchHost {
    private let watchdog: Watchdog
    private let listener: Int32
    private var strangers: [WatchConnection] = []
    private var ranks: [Int: WatchConnection] = [:]
    private var judge: WatchJudge
    private var verdict: CollectiveError?
    /// Ranks that have come, though some may have gone again.
    private var known: Set<Int> = []
    private var saidGoodbye = false
    /// When this process was last found to have been held up.
    private var heldUp: ContinuousClock.Instant?

    init(_ watchdog: Watchdog, _ listener: Int32) {
        self.watchdog = watchdog
        self.listener = listener
        judge = WatchJudge(size: watchdog.settings.size, silence: watchdog.settings.silence, now: .now)
    }

    deinit { close(listener) }

    /// Works until the watch is stopped.
    func run() {
        let interval = watchdog.settings.interval
        var nextTick = ContinuousClock.now
        while !watchdog.isStopping {
            let wait = max(ContinuousClock.now.duration(to: nextTick), .zero)
            let sockets = (strangers + ranks.values).map { ($0.descriptor, $0.events) }
            let ready = poll(
                [(watchdog.alarm.descriptor, Int16(POLLIN)), (listener, Int16(POLLIN))] + sockets,
                milliseconds: wait.microseconds / 1000 + 1)
            watchdog.alarm.reset()
            let now = ContinuousClock.now
            // A process that was held up itself cannot tell who else was.
            if nextTick.duration(to: now) > Watchdog.delay {
                heldUp = now
                judge.forgive(at: now)
            }
            if ready.contains(listener) { while let new = WatchSocket.accept(listener) { strangers.append(new) } }
            hear(ready, now)
            for error in watchdog.takeReports() { judge.note(error) }
            if now >= nextTick {
                nextTick = now + interval
                tick(now)
            }
            decide(now)
            if verdict != nil, known.count == watchdog.settings.size - 1 { watchdog.noteAllTold() }
        }
        for connection in ranks.values { connection.send(.leaving) }
    }

    private func tick(_ now: ContinuousClock.Instant) {
        let own = watchdog.summary(now)
        judge.note(own, of: 0, at: now)
        for connection in ranks.values { connection.send(.alive(own.lastCall)) }
        watchdog.straggler = judge.straggler
    }

    private func hear(_ ready: Set<Int32>, _ now: ContinuousClock.Instant) {
        for connection in strangers where ready.contains(connection.descriptor) {
            let frames = connection.receive()
            if case .hello(watchdog.settings.token, let rank)? = frames.first,
                (1..<watchdog.settings.size).contains(rank), ranks[rank] == nil
            {
                ranks[rank] = connection
                connection.send(.alive(nil))
                // A rank may have failed before this one came.
                if let verdict { connection.send(.verdict(verdict)) }
                known.insert(rank)
                for frame in frames.dropFirst() { hear(frame, rank, now) }
            } else if frames.isEmpty, !connection.isClosed {
                continue
            }
            strangers.removeAll { $0 === connection }
        }
        for (rank, connection) in ranks where ready.contains(connection.descriptor) {
            connection.flush()
            for frame in connection.receive() { hear(frame, rank, now) }
            if connection.isClosed {
                judge.noteEnd(of: rank)
                ranks[rank] = nil
            }
        }
    }

    private func hear(_ frame: WatchFrame, _ rank: Int, _ now: ContinuousClock.Instant) {
        switch frame {
        case .state(let state): judge.note(state, of: rank, at: now)
        case .failure(let error): judge.note(error)
        case .leaving: judge.noteLeaving(of: rank)
        case .hello, .alive, .verdict: break
        }
    }

    private func decide(_ now: ContinuousClock.Instant) {
        if watchdog.isLeaving {
            if judge.isAlone, !saidGoodbye {
                saidGoodbye = true
                for connection in ranks.values { connection.send(.leaving) }
            }
            return
        }
        guard verdict == nil else { return }
        // What has just happened to this rank may be what the verdict is about.
        judge.note(watchdog.summary(now), of: 0, at: now)
        guard let error = judge.verdict(at: now) else { return }
        verdict = error
        // To whoever was stopped for long, the others have ended: they have said why.
        let wasStopped = heldUp.map { $0.duration(to: now) < Watchdog.delay } ?? false
        watchdog.conclude(error, isSpeaker: !wasStopped)
        for connection in ranks.values { connection.send(.verdict(error)) }
    }
}
