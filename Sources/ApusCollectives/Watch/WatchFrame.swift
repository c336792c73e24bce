/// What ranks and the watchdog of rank 0 tell each other.
enum WatchFrame: Sendable, Equatable {
    /// A rank's first words, which prove that it belongs to this world.
    case hello(token: UInt64, rank: Int)
    /// A rank's state, and a sign of life.
    case state(RankState)
    /// A failure that a rank has found.
    case failure(CollectiveError)
    /// Rank 0's sign of life, and its latest call.
    case alive(CollectiveCall?)
    /// The world has ended; everybody learns why.
    case verdict(CollectiveError)
    /// A rank leaves: its connection will close, and nothing is wrong.
    case leaving
}

extension WatchFrame {
    /// The longest that is accepted: far above what is sent, far below what would hurt.
    static let largestSize = 1 << 20

    /// The frame as bytes, its length in front. Times are sent as ages, since clocks differ.
    func bytes(at now: ContinuousClock.Instant) -> [UInt8] {
        var writer = FrameWriter(now: now)
        switch self {
        case .hello(let token, let rank):
            writer.put(0)
            writer.put(Int(bitPattern: UInt(token)))
            writer.put(rank)
        case .state(let state):
            writer.put(1)
            writer.put(state)
        case .failure(let error):
            writer.put(2)
            writer.put(error)
        case .alive(let call):
            writer.put(3)
            writer.put(call) { $0.put($1) }
        case .verdict(let error):
            writer.put(4)
            writer.put(error)
        case .leaving: writer.put(5)
        }
        return writer.framed
    }

    /// The frame that `bytes`, without the length, stand for; `nil` when they stand for none.
    init?(_ bytes: ArraySlice<UInt8>, at now: ContinuousClock.Instant) {
        var reader = FrameReader(bytes, now: now)
        switch reader.integer() {
        case 0: self = .hello(token: UInt64(UInt(bitPattern: reader.integer())), rank: reader.integer())
        case 1: self = .state(reader.state())
        case 2: self = .failure(reader.error())
        case 3: self = .alive(reader.optional { $0.call() })
        case 4: self = .verdict(reader.error())
        case 5: self = .leaving
        default: return nil
        }
        if !reader.isWhole { return nil }
    }

    /// Takes the first whole frame off `buffer`; `nil` when there is none yet.
    ///
    /// - Throws: ``FrameError`` for what is no frame.
    static func take(
        from buffer: inout [UInt8], at now: ContinuousClock.Instant
    ) throws(FrameError) -> WatchFrame? {
        guard buffer.count >= 4 else { return nil }
        let size = buffer[..<4].reversed().reduce(0) { $0 << 8 | Int($1) }
        guard size <= largestSize else { throw FrameError() }
        guard buffer.count >= 4 + size else { return nil }
        guard let frame = WatchFrame(buffer[4..<4 + size], at: now) else { throw FrameError() }
        buffer.removeFirst(4 + size)
        return frame
    }
}

/// Bytes that are no frame.
struct FrameError: Error {}
