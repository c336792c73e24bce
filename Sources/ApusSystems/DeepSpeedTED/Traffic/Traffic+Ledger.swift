public import ApusCollectives
import ApusTensor

extension Traffic {
    /// What a ledger has noted of `layer` on the communicators of a layout; with `nil`, of whatever belongs to no layer.
    /// Splits, barriers and broadcasts move no data of a step and are left out.
    public init(_ ledger: CollectiveLedger, layer: Int?) {
        self.init()
        for (entry, count) in ledger.all where entry.layer == layer && count.calls > 0 {
            guard let group = Group(communicator: entry.communicator), let operation = Operation(entry) else {
                continue
            }
            counts[Use(group, operation), default: Count()] =
                self[group, operation] + count
        }
    }
}

extension Traffic.Group {
    /// The group that a communicator of a layout is one of: `expert4.1`, a kind of group and which of them.
    init?(communicator: String) {
        let kind = communicator.prefix { $0 != "." && $0 != "/" }
        var name = String(kind)
        while name.last?.isNumber == true { name.removeLast() }
        self.init(rawValue: name)
    }
}

extension Traffic.Operation {
    fileprivate init?(_ entry: CollectiveLedger.Entry) {
        switch entry.kind {
        case .allToAll, .allToAllUneven: self = .allToAll
        case .allReduce: self = .allReduce
        case .reduceScatter: self = .reduceScatter
        case .allGather: self = .allGather
        case .broadcast, .send, .receive, .barrier, .split: return nil
        }
        if entry.dtype == .i32 { self = .numbers }
    }
}
