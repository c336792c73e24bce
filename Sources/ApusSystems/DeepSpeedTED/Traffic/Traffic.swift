public import ApusCollectives

/// Calls of collectives and their bytes, as one rank makes them, by group of ranks and by operation.
///
/// Bytes are those of `CollectiveOperation.byteCount`: what the rank contributes, and of an all-gather what it
/// receives.
public struct Traffic: Sendable, Equatable {
    /// Whom a rank talks to.
    public enum Group: String, Sendable, CaseIterable {
        /// Ranks that share each matrix.
        case tensor
        /// Ranks that divide a layer's experts.
        case expert
        /// Ranks with the same part of what is no expert.
        case data
        /// Ranks with the same experts.
        case expertData = "expert-data"
        /// All ranks.
        case world
    }

    /// What it asks of them.
    public enum Operation: String, Sendable, CaseIterable {
        /// Rows on their way to experts and back, and their gradients.
        case allToAll = "all-to-all"
        /// Sums that every rank gets.
        case allReduce = "all-reduce"
        /// Sums of which each rank gets a part.
        case reduceScatter = "reduce-scatter"
        /// Parts that every rank gets.
        case allGather = "all-gather"
        /// 32-bit integers, by whatever operation: rows that are announced, tokens that are counted, loads.
        case numbers
    }

    /// What is counted together.
    public struct Use: Sendable, Hashable {
        /// Whom.
        public let group: Group
        /// What.
        public let operation: Operation

        /// An operation of a group.
        public init(_ group: Group, _ operation: Operation) {
            self.group = group
            self.operation = operation
        }
    }

    /// How often, and how much.
    public typealias Count = CollectiveLedger.Count

    /// What there is; uses without a call are not in it.
    public internal(set) var counts: [Use: Count] = [:]

    /// No call.
    public init() {}

    /// Adds `calls` calls of `bytes` bytes each.
    public mutating func add(_ group: Group, _ operation: Operation, calls: Int = 1, bytes: Int) {
        guard calls > 0 else { return }
        counts[Use(group, operation), default: Count()] =
            self[group, operation] + Count(calls: calls, bytes: calls * bytes)
    }

    /// The count of one use.
    public subscript(group: Group, operation: Operation) -> Count { counts[Use(group, operation)] ?? Count() }

    /// The count of an operation over some groups.
    public func total(_ operation: Operation, over groups: Group...) -> Count {
        groups.reduce(Count()) { $0 + self[$1, operation] }
    }

    /// What concerns some groups alone.
    public func only(_ groups: Group...) -> Traffic {
        var part = Traffic()
        part.counts = counts.filter { groups.contains($0.key.group) }
        return part
    }

    /// Both together.
    public static func + (left: Traffic, right: Traffic) -> Traffic {
        var sum = left
        sum.counts.merge(right.counts, uniquingKeysWith: +)
        return sum
    }

    /// The same `times` times.
    public static func * (traffic: Traffic, times: Int) -> Traffic {
        var product = Traffic()
        for (use, count) in traffic.counts where times > 0 {
            product.counts[use] = Count(calls: count.calls * times, bytes: count.bytes * times)
        }
        return product
    }
}

extension Traffic: CustomStringConvertible {
    /// `tensor all-reduce 4 calls 4096 B; ...`, in the order of groups and operations.
    public var description: String {
        Group.allCases.flatMap { group in
            Operation.allCases.compactMap { operation in
                counts[Use(group, operation)].map {
                    "\(group.rawValue) \(operation.rawValue) \($0.calls) calls \($0.bytes) B"
                }
            }
        }.joined(separator: "; ")
    }
}
