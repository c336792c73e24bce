import Glibc

/// The clock that host times are told by: it never goes back, and all processes of a machine share it.
public enum HostClock {
    /// Nanoseconds since some moment of the machine's past (`CLOCK_MONOTONIC`).
    public static var nanoseconds: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}
