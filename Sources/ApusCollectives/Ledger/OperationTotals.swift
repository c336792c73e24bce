/// What a rank's collectives cost, by kind of communicator and operation: what can be compared from rank to rank.
///
/// Rows are in the order of their names, the same on every rank that did the same.
public struct OperationTotals: Sendable, Equatable {
    /// The operations of one kind on communicators of one kind.
    public struct Row: Sendable, Equatable {
        /// What the communicators are for, without the number of the group: `expert4`, `data`, `tensor`.
        public let communicator: String
        /// The operation: `all-to-all`.
        public let operation: String
        /// Calls.
        public var calls: Int
        /// Bytes that the rank contributed: the sum of ``CollectiveOperation/byteCount``.
        public var bytes: Int
        /// Seconds from start to end: see ``CollectiveLedger/Cost``.
        public var seconds: Double
        /// The part of ``seconds`` that held the caller up; `nil` where that is not known, as of operations of a device.
        public var exposedSeconds: Double?

        mutating func add(_ cost: CollectiveLedger.Cost) {
            calls += cost.count.calls
            bytes += cost.count.bytes
            seconds += cost.seconds
            exposedSeconds = sum(exposedSeconds, cost.exposedSeconds)
        }
    }

    /// By communicator, then operation.
    public let rows: [Row]

    init(rows: [Row]) { self.rows = rows }

    /// What a ledger has counted so far.
    public init(_ ledger: CollectiveLedger) {
        struct Key: Hashable {
            let communicator: String
            let operation: String
        }
        let rows = ledger.costs.reduce(into: [Key: Row]()) { rows, item in
            let key = Key(
                communicator: CollectiveLedger.kind(ofCommunicator: item.key.communicator),
                operation: item.key.kind.rawValue)
            let empty = Row(
                communicator: key.communicator, operation: key.operation, calls: 0, bytes: 0, seconds: 0,
                exposedSeconds: 0)
            rows[key, default: empty].add(item.value)
        }
        self.rows = rows.values.sorted { ($0.communicator, $0.operation) < ($1.communicator, $1.operation) }
    }

    /// The row of one operation, if it was called.
    public subscript(communicator: String, operation: OperationSignature.Kind) -> Row? {
        rows.first { $0.communicator == communicator && $0.operation == operation.rawValue }
    }

    /// Seconds that held the rank up, over all rows; `nil` where one row's are not known.
    public var exposedSeconds: Double? { rows.reduce(0) { sum($0, $1.exposedSeconds) } }
}

/// Both added; `nil` where one is not known.
private func sum(_ left: Double?, _ right: Double?) -> Double? { left.flatMap { left in right.map { left + $0 } } }

extension CollectiveLedger {
    /// What a communicator is for: its name without the numbers of groups, `expert4` for `expert4.1`, `expert/tensor` for
    /// `expert.0/tensor.1#2`.
    public static func kind(ofCommunicator name: String) -> String {
        name.split(separator: "/").map { part in
            guard let dot = part.lastIndex(of: "."), part.index(after: dot) < part.endIndex else { return String(part) }
            let color = part[part.index(after: dot)...].split(separator: "#", maxSplits: 1).first ?? ""
            return color.allSatisfy(\.isNumber) ? String(part[..<dot]) : String(part)
        }.joined(separator: "/")
    }
}
