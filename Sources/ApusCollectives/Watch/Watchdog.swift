import Glibc
import Synchronization

/// The watch over ranks, outside MPI: a thread of every rank that tells rank 0 where the rank is, and hears from it when
/// the world must end.
///
/// Each rank's thread sends its state a few times a second over a connection of its own, so that calls cost nothing here,
/// and a rank whose MPI hangs is heard all the same. Rank 0's thread keeps the table (``WatchJudge``). When it finds that
/// the world must end, it says why on standard error, once, and tells everybody. When rank 0 itself is gone, each rank
/// ends by itself, and one of each machine says why.
///
/// Whatever ends the world, the process ends too: by itself, or by this thread when it has not within the grace.
final class Watchdog: Sendable {
    /// What the watch is over, and how long things may take.
    struct Settings: Sendable {
        var rank: Int
        var size: Int
        /// How long a rank may give no sign of life.
        var silence: Duration
        /// How long a process may take to end after the world has.
        var grace = Duration.seconds(5)
        /// What tells this world from others on the machine.
        var token: UInt64
        /// Says why the world has ended.
        var announce: @Sendable (CollectiveError) -> Void
        /// Ends the process.
        var exit: @Sendable () -> Void

        /// Time between two signs of life; longer where many ranks report to one.
        var interval: Duration { .milliseconds(200 * max(1, size / 64)) }
    }

    /// A thread that runs this much later than it meant to was held up, and knows nothing of the time between.
    static let delay = Duration.seconds(2)

    let settings: Settings
    let summary: @Sendable (ContinuousClock.Instant) -> RankState
    let end: @Sendable (CollectiveError) -> Void
    let alarm = Alarm()
    private let state = Mutex(State())

    private struct State {
        var reports: [CollectiveError] = []
        var isLeaving = false
        var isStopping = false
        var verdict: CollectiveError?
        var isAnnounced = false
        var isAllTold = false
        var straggler: StragglerReport?
        var thread: RankThread?
    }

    /// A watch that asks `summary` for this rank's state and calls `end` when the world ends.
    init(
        _ settings: Settings, summary: @escaping @Sendable (ContinuousClock.Instant) -> RankState,
        end: @escaping @Sendable (CollectiveError) -> Void
    ) {
        self.settings = settings
        self.summary = summary
        self.end = end
    }

    /// Starts the thread of rank 0, which takes connections from `listener`.
    func host(_ listener: Int32) {
        start { WatchHost(self, listener).run() }
    }

    /// Starts the thread of another rank, connected to rank 0.
    func join(_ connection: sending WatchConnection) {
        let handover = Handover(connection)
        start {
            guard let connection = handover.take() else { return }
            WatchGuest(self, connection).run()
        }
    }

    /// Carries a connection into the thread that will own it.
    private final class Handover: Sendable {
        private let connection: Mutex<WatchConnection?>

        init(_ connection: sending WatchConnection) { self.connection = Mutex(connection) }

        func take() -> sending WatchConnection? {
            connection.withLock { connection in
                let taken = connection
                connection = nil
                return taken
            }
        }
    }

    private func start(_ body: @escaping @Sendable () -> Void) {
        let thread = RankThread(body)
        state.withLock { $0.thread = thread }
    }

    /// Tells rank 0 of a failure that this rank has found.
    func report(_ error: CollectiveError) {
        state.withLock { $0.reports.append(error) }
        alarm.ring()
    }

    /// Makes known that this rank is about to leave; from now on nobody's end is a failure.
    func leave() {
        state.withLock { $0.isLeaving = true }
        alarm.ring()
    }

    /// Ends the thread, after ``leave()``.
    func stop() {
        let thread = state.withLock { state in
            state.isStopping = true
            defer { state.thread = nil }
            return state.thread
        }
        alarm.ring()
        thread?.join()
    }

    /// Why the world has ended, once that is decided.
    var verdict: CollectiveError? { state.withLock { $0.verdict } }

    /// Whether somebody has said, or is about to say, why.
    var isAnnounced: Bool { state.withLock { $0.isAnnounced } }

    /// On rank 0, whether every rank has been told why.
    var isAllTold: Bool { state.withLock { $0.isAllTold } }

    /// The slowest rank, on rank 0.
    var straggler: StragglerReport? {
        get { state.withLock { $0.straggler } }
        set { state.withLock { $0.straggler = newValue } }
    }

    // MARK: The threads' side

    /// The failures reported since the last time.
    func takeReports() -> [CollectiveError] {
        state.withLock { state in
            defer { state.reports = [] }
            return state.reports
        }
    }

    /// Notes that every rank has been told why the world has ended.
    func noteAllTold() { state.withLock { $0.isAllTold = true } }

    var isLeaving: Bool { state.withLock { $0.isLeaving } }
    var isStopping: Bool { state.withLock { $0.isStopping } }

    /// Ends the world on this rank, says why if that is this rank's to do, and gives the process its grace.
    func conclude(_ error: CollectiveError, isSpeaker: Bool) {
        // Said before anything else: a launcher that has noticed too may end this process at any moment.
        if isSpeaker { settings.announce(error) }
        state.withLock { state in
            state.verdict = error
            state.isAnnounced = true
        }
        end(error)
        let exit = settings.exit
        let grace = settings.grace
        RankThread {
            usleep(UInt32(clamping: grace.microseconds))
            exit()
        }.detach()
    }

    /// Whether this process is the one of its machine that speaks where rank 0 cannot.
    func claimSpeech() -> Bool { WatchSocket.claim("apus-verdict-\(settings.token)") != nil }
}
