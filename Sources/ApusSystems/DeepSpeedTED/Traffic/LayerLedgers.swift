public import ApusCollectives
public import ApusTensor
import Synchronization

/// What one rank has asked of its communicators, layer by layer.
public final class LayerLedgers: Sendable {
    private let ledgers = Mutex<[Int?: CollectiveLedger]>([:])

    /// Without entries.
    public init() {}

    /// The ledger of a layer; of `nil`, that of whatever belongs to no layer.
    public func ledger(layer: Int?) -> CollectiveLedger {
        ledgers.withLock { ledgers in
            if let known = ledgers[layer] { return known }
            let ledger = CollectiveLedger()
            ledgers[layer] = ledger
            return ledger
        }
    }

    /// What a layer asked for.
    public func traffic(layer: Int?) -> Traffic { Traffic(ledger(layer: layer)) }

    /// What all layers and the rest of a step asked for.
    public var traffic: Traffic {
        ledgers.withLock { Array($0.values) }.reduce(Traffic()) { $0 + Traffic($1) }
    }

    /// Forgets everything.
    public func clear() { for ledger in ledgers.withLock({ Array($0.values) }) { ledger.clear() } }
}

/// A communicator that notes every operation in the ledger of the layer that asks.
public final class LayerCountingCollective: Collective {
    /// Where operations are noted, those of the parts of this communicator too.
    public let ledgers: LayerLedgers
    private let base: any Collective

    /// Counts what is asked of `base`.
    public init(_ base: any Collective, in ledgers: LayerLedgers) {
        self.base = base
        self.ledgers = ledgers
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
        try CountingCollective(base, in: ledgers.ledger(layer: layer)).start(operation, after: stream, layer: layer)
    }

    /// See ``Collective/split(name:color:key:timeout:)``; the part counts in the same ledgers.
    public func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        try base.split(name: name, color: color, key: key, timeout: timeout).map {
            LayerCountingCollective($0, in: ledgers)
        }
    }

    /// See ``Collective/abort(reason:)``.
    public func abort(reason: String) { base.abort(reason: reason) }
}
