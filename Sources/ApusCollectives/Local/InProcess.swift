public import ApusTensor
import Synchronization

/// One rank of a world whose ranks are threads of this process: for tests, and for layouts on one machine.
///
/// 1. A call publishes itself in the ``board`` and joins the meeting of its channel and number.
/// 2. The last rank to come has the whole transfer. Without a delay it moves the data itself; with one, a progress
///    thread does when the delay is over, and the ranks compute in the meantime.
/// 3. The same progress thread ends the world when a meeting waits longer than its communicator's timeout.
///
/// Transfers of one communicator follow each other, as on a wire: a second one begins when the first is over.
public final class InProcess: Collective {
    /// See ``Collective/name``.
    public let name: String
    /// See ``Collective/rank``.
    public let rank: Int
    /// See ``Collective/members``.
    public let members: [Int]
    /// See ``Collective/timeout``.
    public let timeout: Duration
    private let world: InProcessWorld
    private let group: Int
    private let counters = Mutex(Counters())

    private struct Counters {
        var calls: [Channel.Pair?: Int] = [:]
        var splits: [String: Int] = [:]

        mutating func next(_ pair: Channel.Pair?) -> Int {
            defer { calls[pair, default: 0] += 1 }
            return calls[pair, default: 0]
        }
    }

    init(_ world: InProcessWorld, group: Int, name: String, rank: Int, members: [Int], timeout: Duration) {
        self.world = world
        self.group = group
        self.name = name
        self.rank = rank
        self.members = members
        self.timeout = timeout
    }

    /// The table in which the ranks of this world publish their calls.
    public var board: StatusBoard { world.board }

    /// See ``Collective/start(_:after:layer:)``.
    public func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event {
        let pair = try operation.admitted(to: self)
        return try join(.operation(operation), OperationSignature(operation), pair, layer)
    }

    /// See ``Collective/split(name:color:key:timeout:)``.
    public func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        let occurrence = counters.withLock { counters in
            counters.splits[name, default: 0] += 1
            return counters.splits[name, default: 1]
        }
        let ticket = SplitTicket(color: color, key: key)
        try join(.split(ticket), OperationSignature(kind: .split, label: name), nil, nil).wait()
        guard let color, let seat = ticket.seat.withLock({ $0 }) else { return nil }
        return InProcess(
            world, group: seat.group, name: partName(name, color: color, occurrence: occurrence), rank: seat.rank,
            members: seat.places.map { members[$0] }, timeout: timeout ?? self.timeout)
    }

    /// See ``Collective/abort(reason:)``.
    public func abort(reason: String) {
        world.fail(.aborted(communicator: name, reason: reason))
    }

    private func join(
        _ request: Meeting.Request, _ signature: OperationSignature, _ pair: Channel.Pair?, _ layer: Int?
    ) throws -> Event {
        let call = CollectiveCall(
            rank: members[rank], channel: Channel(communicator: name, pair: pair),
            sequence: counters.withLock { $0.next(pair) }, operation: signature, layer: layer, time: .now)
        let event = Event()
        let place = pair.map { $0.source == rank ? 0 : 1 } ?? rank
        try world.join(
            Meeting.Arrival(call: call, request: request, event: event), at: place, of: group,
            members: pair.map { [members[$0.source], members[$0.target]] } ?? members, timeout: timeout)
        return event
    }
}
