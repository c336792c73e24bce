import Synchronization

/// The table in which every rank publishes its calls, and from which a watchdog tells who is missing.
public final class StatusBoard: Sendable {
    private let ranks: Mutex<[Record]>

    private struct Record {
        var lastCall: CollectiveCall?
        var reached: [Channel: Int] = [:]
    }

    /// A table for a world of `size` ranks.
    public init(size: Int) {
        ranks = Mutex(Array(repeating: Record(), count: size))
    }

    /// Notes a call, before its rank waits in it.
    public func publish(_ call: CollectiveCall) {
        ranks.withLock { ranks in
            ranks[call.rank].lastCall = call
            ranks[call.rank].reached[call.channel] = call.sequence
        }
    }

    /// The latest call of each rank of the world.
    public var lastCalls: [CollectiveCall?] { ranks.withLock { $0.map(\.lastCall) } }

    /// Those of `members`, ranks of the world, that have not reached `call`.
    public func missing(from call: CollectiveCall, among members: [Int]) -> [MissingRank] {
        ranks.withLock { ranks in
            members
                .filter { ranks[$0].reached[call.channel, default: -1] < call.sequence }
                .map { MissingRank(rank: $0, lastCall: ranks[$0].lastCall) }
        }
    }
}
