import Glibc

/// Lets one thread sleep until a time, or until another thread rings.
package final class Alarm: Sendable {
    private let readEnd: Int32
    private let writeEnd: Int32

    /// An alarm that has not rung.
    package init() {
        var ends: [Int32] = [-1, -1]
        let status = pipe(&ends)
        precondition(status == 0, "the system refused a pipe: errno \(errno)")
        for end in ends {
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
        }
        readEnd = ends[0]
        writeEnd = ends[1]
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    /// Ends the sleep under way, or the next one.
    package func ring() {
        var byte: UInt8 = 1
        // A full pipe rings already.
        _ = write(writeEnd, &byte, 1)
    }

    /// What becomes readable when the alarm rings, for a thread that waits for other things too.
    var descriptor: Int32 { readEnd }

    /// Forgets that it has rung.
    func reset() {
        var bytes: [64 of UInt8] = .init(repeating: 0)
        while read(readEnd, &bytes, 64) == 64 {}
    }

    /// Sleeps until `time`, without end for `nil`, and may return early.
    package func sleep(until time: ContinuousClock.Instant?) {
        var milliseconds: Int32 = -1
        if let time {
            let (seconds, attoseconds) = max(ContinuousClock.now.duration(to: time), .zero).components
            let nanoseconds = Int(attoseconds / 1_000_000_000)
            if seconds == 0, nanoseconds < 1_000_000 {
                // Below what poll can measure; too short for a ring to matter.
                var remaining = timespec(tv_sec: 0, tv_nsec: nanoseconds)
                nanosleep(&remaining, nil)
                return
            }
            milliseconds = Int32(clamping: Int(seconds) * 1000 + nanoseconds / 1_000_000)
        }
        var descriptor = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
        _ = poll(&descriptor, 1, milliseconds)
        reset()
    }
}
