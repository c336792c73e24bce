import ApusTensor

/// Reads what ``FrameWriter`` has written. Bytes that do not fit give zeros and empty values, and ``isWhole`` tells.
struct FrameReader {
    private var bytes: ArraySlice<UInt8>
    private let now: ContinuousClock.Instant
    private var hasFailed = false

    init(_ bytes: ArraySlice<UInt8>, now: ContinuousClock.Instant) {
        self.bytes = bytes
        self.now = now
    }

    /// Whether everything could be read, and nothing is left.
    var isWhole: Bool { !hasFailed && bytes.isEmpty }

    mutating func integer() -> Int {
        guard bytes.count >= 8 else { return fail(0) }
        defer { bytes = bytes.dropFirst(8) }
        return Int(bitPattern: bytes.prefix(8).reversed().reduce(UInt(0)) { $0 << 8 | UInt($1) })
    }

    mutating func text() -> String {
        let count = integer()
        guard count >= 0, count <= bytes.count else { return fail("") }
        defer { bytes = bytes.dropFirst(count) }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    mutating func duration() -> Duration { .microseconds(integer()) }

    mutating func optional<Value>(_ read: (inout FrameReader) -> Value) -> Value? {
        integer() == 0 ? nil : read(&self)
    }

    mutating func list<Value>(_ read: (inout FrameReader) -> Value) -> [Value] {
        let count = integer()
        // Every entry takes 8 bytes at least.
        guard count >= 0, count <= bytes.count / 8 else { return fail([]) }
        return (0..<count).map { _ in read(&self) }
    }

    mutating func channel() -> Channel {
        Channel(
            communicator: text(),
            pair: optional { Channel.Pair(source: $0.integer(), target: $0.integer()) })
    }

    mutating func call() -> CollectiveCall {
        let rank = integer()
        let channel = channel()
        let sequence = integer()
        let kind = OperationSignature.Kind(rawValue: text())
        if kind == nil { hasFailed = true }
        var operation = OperationSignature(kind: kind ?? .barrier)
        operation.reduction = optional { Reduction(rawValue: $0.text()) } ?? nil
        operation.dtype = optional { DType(rawValue: UInt8(truncatingIfNeeded: $0.integer())) } ?? nil
        operation.elements = optional { $0.integer() }
        operation.root = optional { $0.integer() }
        operation.label = optional { $0.text() }
        let layer = optional { $0.integer() }
        return CollectiveCall(
            rank: rank, channel: channel, sequence: sequence, operation: operation, layer: layer,
            time: now - duration())
    }

    mutating func state() -> RankState {
        var state = RankState()
        state.lastCall = optional { $0.call() }
        state.waiting = list { $0.call() }
        for (channel, sequence) in list({ ($0.channel(), $0.integer()) }) { state.reached[channel] = sequence }
        state.recent = list { $0.call() }
        state.overdue = optional { reader in
            RankState.Overdue(
                call: reader.call(), timeout: reader.duration(), members: reader.list { $0.integer() })
        }
        state.completed = integer()
        state.waited = duration()
        return state
    }

    mutating func missing() -> MissingRank {
        let rank = integer()
        let lastCall = optional { $0.call() }
        let condition: MissingRank.Condition =
            switch integer() {
            case 1: .ended
            case 2: .silent(duration())
            case 3: .left
            default: .running
            }
        return MissingRank(rank: rank, lastCall: lastCall, condition: condition)
    }

    mutating func error() -> CollectiveError {
        switch integer() {
        case 0: .timeout(call(), after: duration(), missing: list { $0.missing() })
        case 1: .mismatch(call(), call(), detail: optional { $0.text() })
        case 2: .lost(list { $0.missing() }, waiting: optional { $0.call() })
        case 3: .aborted(communicator: text(), reason: text())
        default: fail(.aborted(communicator: "", reason: ""))
        }
    }

    private mutating func fail<Value>(_ value: Value) -> Value {
        hasFailed = true
        bytes = []
        return value
    }
}
