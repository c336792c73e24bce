import Glibc
import Synchronization

/// Whether the user has asked the run to stop (Ctrl-C, or a scheduler's SIGTERM). The second time the process ends.
public enum Interruption {
    private static let count = Atomic<Int>(0)

    /// Begins to listen. A signal handler may do almost nothing: this one adds to a counter.
    public static func listen() {
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                if Interruption.count.wrappingAdd(1, ordering: .relaxed).oldValue > 0 { _exit(128 + number) }
            }
        }
    }

    /// Whether a stop was asked for.
    public static var isRequested: Bool { count.load(ordering: .relaxed) > 0 }
}
