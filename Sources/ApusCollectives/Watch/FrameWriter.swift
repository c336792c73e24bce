import ApusTensor

/// Writes the values of frames one after the other: integers in 8 bytes, the lowest first, texts and lists behind their
/// length.
struct FrameWriter {
    private var bytes: [UInt8] = []
    private let now: ContinuousClock.Instant

    init(now: ContinuousClock.Instant) { self.now = now }

    /// All that was written, its length in front.
    var framed: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: bytes.count >> ($0 * 8)) } + bytes }

    mutating func put(_ value: Int) {
        for byte in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: value >> (byte * 8))) }
    }

    mutating func put(_ text: String) {
        put(text.utf8.count)
        bytes.append(contentsOf: text.utf8)
    }

    mutating func put(_ duration: Duration) { put(duration.microseconds) }

    mutating func put<Value>(_ value: Value?, _ write: (inout FrameWriter, Value) -> Void) {
        put(value == nil ? 0 : 1)
        if let value { write(&self, value) }
    }

    mutating func put<Value>(_ values: [Value], _ write: (inout FrameWriter, Value) -> Void) {
        put(values.count)
        for value in values { write(&self, value) }
    }

    mutating func put(_ channel: Channel) {
        put(channel.communicator)
        put(channel.pair) {
            $0.put($1.source)
            $0.put($1.target)
        }
    }

    mutating func put(_ call: CollectiveCall) {
        put(call.rank)
        put(call.channel)
        put(call.sequence)
        put(call.operation.kind.rawValue)
        put(call.operation.reduction) { $0.put($1.rawValue) }
        put(call.operation.dtype) { $0.put(Int($1.rawValue)) }
        put(call.operation.elements) { $0.put($1) }
        put(call.operation.root) { $0.put($1) }
        put(call.operation.label) { $0.put($1) }
        put(call.layer) { $0.put($1) }
        put(call.time.duration(to: now))
    }

    mutating func put(_ state: RankState) {
        put(state.lastCall) { $0.put($1) }
        put(state.waiting) { $0.put($1) }
        put(state.reached.map { ($0.key, $0.value) }) {
            $0.put($1.0)
            $0.put($1.1)
        }
        put(state.recent) { $0.put($1) }
        put(state.overdue) {
            $0.put($1.call)
            $0.put($1.timeout)
            $0.put($1.members) { $0.put($1) }
        }
        put(state.completed)
        put(state.waited)
    }

    mutating func put(_ rank: MissingRank) {
        put(rank.rank)
        put(rank.lastCall) { $0.put($1) }
        switch rank.condition {
        case .running: put(0)
        case .ended: put(1)
        case .silent(let time):
            put(2)
            put(time)
        case .left: put(3)
        }
    }

    mutating func put(_ error: CollectiveError) {
        switch error {
        case .timeout(let call, let time, let missing):
            put(0)
            put(call)
            put(time)
            put(missing) { $0.put($1) }
        case .mismatch(let first, let second, let detail):
            put(1)
            put(first)
            put(second)
            put(detail) { $0.put($1) }
        case .lost(let ranks, let waiting):
            put(2)
            put(ranks) { $0.put($1) }
            put(waiting) { $0.put($1) }
        case .aborted(let communicator, let reason):
            put(3)
            put(communicator)
            put(reason)
        case .notHostMemory(let communicator, _, _):
            put(3)
            put(communicator)
            put(error.description)
        }
    }
}

extension Duration {
    /// Whole microseconds.
    var microseconds: Int {
        let (seconds, attoseconds) = components
        return Int(seconds) * 1_000_000 + Int(attoseconds / 1_000_000_000_000)
    }
}
