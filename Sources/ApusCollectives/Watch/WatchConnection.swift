import Glibc

/// One end of a connection between a rank and the watchdog: whole frames over a stream of bytes, never blocking.
///
/// Used by one thread.
final class WatchConnection {
    let descriptor: Int32
    private var incoming: [UInt8] = []
    private var outgoing: [UInt8] = []
    /// Whether the other side has closed, or spoke no sense.
    private(set) var isClosed = false

    /// Bytes that may wait for a reader; one that leaves more unread is as good as gone.
    private static let patience = 4 * WatchFrame.largestSize

    /// Takes a connected socket over.
    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit { close(descriptor) }

    /// What to ask `poll` for.
    var events: Int16 { Int16(POLLIN) | (outgoing.isEmpty ? 0 : Int16(POLLOUT)) }

    /// Sends a frame, or as much of it as goes now.
    func send(_ frame: WatchFrame) {
        guard !isClosed else { return }
        outgoing += frame.bytes(at: .now)
        if outgoing.count > WatchConnection.patience { isClosed = true }
        flush()
    }

    /// Sends what is left of earlier frames.
    func flush() {
        while !outgoing.isEmpty, !isClosed {
            let sent = Glibc.send(descriptor, outgoing, outgoing.count, Int32(MSG_NOSIGNAL))
            if sent > 0 {
                outgoing.removeFirst(sent)
            } else if errno != EINTR {
                if errno != EAGAIN { isClosed = true }
                return
            }
        }
    }

    /// The frames that have arrived, the first `limit` of them; the others stay for the next time.
    func receive(limit: Int = .max) -> [WatchFrame] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        while !isClosed {
            let count = read(descriptor, &bytes, bytes.count)
            if count > 0 {
                incoming += bytes[..<count]
            } else if count == 0 {
                isClosed = true
            } else if errno == EAGAIN {
                break
            } else if errno != EINTR {
                isClosed = true
            }
        }
        var frames: [WatchFrame] = []
        do throws(FrameError) {
            while frames.count < limit, let frame = try WatchFrame.take(from: &incoming, at: .now) {
                frames.append(frame)
            }
        } catch {
            isClosed = true
        }
        return frames
    }
}

/// Waits until one of `descriptors` is ready or `milliseconds` are over, and returns those that are.
func poll(_ descriptors: [(descriptor: Int32, events: Int16)], milliseconds: Int) -> Set<Int32> {
    var entries = descriptors.map { pollfd(fd: $0.descriptor, events: $0.events, revents: 0) }
    guard Glibc.poll(&entries, nfds_t(entries.count), Int32(clamping: milliseconds)) > 0 else { return [] }
    return Set(entries.filter { $0.revents != 0 }.map(\.fd))
}
