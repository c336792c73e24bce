import Glibc
import Synchronization

/// Whether the run was asked to stop: Ctrl-C, a scheduler's SIGTERM or SIGUSR1, or a terminal that went away (SIGHUP). The
/// second Ctrl-C or SIGTERM ends the process; a SIGHUP never does, for a closing terminal sends several, nor a SIGUSR1,
/// which a launcher hands to all ranks.
public enum Interruption {
    private static let count = Atomic<Int>(0)

    /// Begins to listen. A signal handler may do almost nothing: this one adds to a counter.
    public static func listen() {
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                if Interruption.count.wrappingAdd(1, ordering: .relaxed).oldValue > 0 { _exit(128 + number) }
            }
        }
        request(on: SIGUSR1)
        // Who started the process with SIGHUP ignored (nohup) wants it to outlive the terminal.
        if !isIgnored(SIGHUP) { request(on: SIGHUP) }
    }

    /// Makes a signal a request, however often it comes.
    private static func request(on number: Int32) {
        signal(number) { _ in
            _ = Interruption.count.compareExchange(expected: 0, desired: 1, ordering: .relaxed)
        }
    }

    /// Lets the run go on when the reader of its output has gone (`apus train ... | head`): writing then fails instead.
    public static func outliveReaders() { signal(SIGPIPE, SIG_IGN) }

    private static func isIgnored(_ number: Int32) -> Bool {
        var action = sigaction()
        guard sigaction(number, nil, &action) == 0 else { return false }
        return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
            == unsafeBitCast(SIG_IGN, to: Int.self)
    }

    /// Whether a stop was asked for.
    public static var isRequested: Bool { count.load(ordering: .relaxed) > 0 }
}
