import Glibc

/// A place in the order of a backend's work, which keeps the time at which the backend came past it.
public protocol TimeMark: Sendable {
    /// Whether the backend has come past; asking waits for nothing.
    var isComplete: Bool { get }
    /// Blocks until the backend has come past.
    ///
    /// - Throws: what the work before it ended with.
    func wait() throws
    /// Seconds of the backend's own clock from an earlier mark of the same backend to this one. Waits for this one.
    func seconds(since begin: any TimeMark) throws -> Double
}

/// Telling when work was done: on a device by its own clock, for the host is done with an op long before.
public protocol ClockOp {
    /// Marks the end of all that the backend was given so far. Waits for nothing.
    ///
    /// Recorded work (``RecordingOp``) contains no mark, for it would pass the same one again and again.
    ///
    /// - Throws: what the device throws, and where it records, that.
    func timeMark() throws -> any TimeMark
}

extension CPUBackend: ClockOp {
    /// Ops are done when they return: it is now.
    public func timeMark() -> any TimeMark { HostTimeMark() }
}

/// A moment of the host's clock, which never goes back.
private struct HostTimeMark: TimeMark {
    private let nanoseconds: Int

    init() {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        nanoseconds = time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    var isComplete: Bool { true }

    func wait() {}

    func seconds(since begin: any TimeMark) -> Double {
        guard let begin = begin as? HostTimeMark else { preconditionFailure("both marks are the host's") }
        return Double(nanoseconds - begin.nanoseconds) * 1e-9
    }
}
