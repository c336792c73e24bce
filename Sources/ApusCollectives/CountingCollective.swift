public import ApusTensor

/// A communicator that notes every operation and what it cost in a ledger, and hands it on.
public final class CountingCollective: Collective {
    /// Where operations are noted, those of the parts of this communicator too.
    public let ledger: CollectiveLedger
    private let base: any Collective

    /// Counts what is asked of `base`.
    public init(_ base: any Collective, in ledger: CollectiveLedger) {
        self.base = base
        self.ledger = ledger
    }

    /// See ``Collective/name``.
    public var name: String { base.name }
    /// See ``Collective/rank``.
    public var rank: Int { base.rank }
    /// See ``Collective/members``.
    public var members: [Int] { base.members }
    /// See ``Collective/timeout``.
    public var timeout: Duration { base.timeout }

    /// See ``Collective/start(_:after:layer:)``.
    public func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event {
        // The time for which an earlier operation's output is waited for is that operation's. A device waits by itself.
        for tensor in [operation.input, operation.output].compactMap(\.self) where tensor.ready?.work == nil {
            try tensor.ready?.wait()
        }
        let call = ledger.note(operation, on: name, layer: layer)
        let start = HostClock.nanoseconds
        let event = try base.start(operation, after: stream, layer: layer)
        if let work = event.work as? any TimedWork {
            ledger.note(call, timedBy: work)
            return event
        }
        let returned = HostClock.nanoseconds
        event.observe { [ledger] completion in
            let end = completion.time
            let waiting = completion.waitedSince.map { max(end - max($0, returned), 0) } ?? 0
            ledger.note(call, from: start, to: end, held: max(min(returned, end) - start, 0) + waiting)
        }
        return event
    }

    /// See ``Collective/split(name:color:key:timeout:)``; the part counts in the same ledger.
    public func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        try base.split(name: name, color: color, key: key, timeout: timeout).map { CountingCollective($0, in: ledger) }
    }

    /// See ``Collective/abort(reason:)``.
    public func abort(reason: String) { base.abort(reason: reason) }
}
