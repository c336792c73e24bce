public import ApusTensor
import Synchronization

/// One rank of a world of processes that Open MPI connects.
///
/// 1. A call is numbered, noted for the watchdog, and handed to the progress thread, which alone calls MPI.
/// 2. The operation's ``ExchangePlan`` says which messages go between which ranks. Reductions sum in the order of ranks,
///    `bf16` in `f32` with one rounding, so that every rank has the same bits in every run, those of ``InProcess``.
/// 3. Messages carry the history of their communicator: ranks that made different calls never take each other's data, but
///    wait until the watchdog, which hears of both calls, names them.
/// 4. When an operation passes its time-out, or a rank ends or stops, the watchdog ends the world on all ranks.
///
/// Data moves while the progress thread runs, which shares the cores with whoever computes.
public final class MPICollective: Collective {
    /// See ``Collective/name``.
    public let name: String
    /// See ``Collective/rank``.
    public let rank: Int
    /// See ``Collective/members``.
    public let members: [Int]
    /// See ``Collective/timeout``.
    public let timeout: Duration
    /// What all communicators of this process share.
    public let world: MPIWorld
    private let context: MPIContext
    private let numbering = Mutex(CallNumbering())

    init(_ world: MPIWorld, _ context: MPIContext, name: String, rank: Int, members: [Int], timeout: Duration) {
        self.world = world
        self.context = context
        self.name = name
        self.rank = rank
        self.members = members
        self.timeout = timeout
    }

    /// See ``Collective/start(_:after:layer:)``.
    public func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event {
        let pair = try operation.admitted(to: self)
        return try begin(.operation(operation), OperationSignature(operation), pair, layer)
    }

    /// See ``Collective/split(name:color:key:timeout:)``.
    public func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        let occurrence = numbering.withLock { $0.occurrence(of: name) }
        let ticket = MPISplit(
            entry: MPISplit.Entry(color: color, key: key, contexts: world.contextsInUse), size: size)
        try begin(.split(ticket), OperationSignature(kind: .split, label: name), nil, nil).wait()
        guard let color else { return nil }
        let part = ticket.part(color: color)
        let partName = partName(name, color: color, occurrence: occurrence)
        guard let context = world.context(notIn: part.contexts), let rank = part.places.firstIndex(of: self.rank) else {
            let error = CollectiveError.aborted(
                communicator: partName, reason: "\(MPIContext.limit) communicators at once are the most there can be")
            world.fail(error)
            throw error
        }
        return MPICollective(
            world, context, name: partName, rank: rank, members: part.places.map { members[$0] },
            timeout: timeout ?? self.timeout)
    }

    /// See ``Collective/abort(reason:)``.
    public func abort(reason: String) { world.fail(.aborted(communicator: name, reason: reason)) }

    private func begin(
        _ body: MPIRequest.Body, _ signature: OperationSignature, _ pair: Channel.Pair?, _ layer: Int?
    ) throws(CollectiveError) -> Event {
        // Numbered and handed over in one go, so that the progress thread meets calls in the order of their numbers.
        try numbering.withLock { numbering throws(CollectiveError) in
            let place = numbering.next(pair, signature)
            let call = CollectiveCall(
                rank: members[rank], channel: Channel(communicator: name, pair: pair), sequence: place.sequence,
                operation: signature, layer: layer, time: .now)
            let request = MPIRequest(
                call: call, place: place, body: body, context: context, rank: rank, members: members, timeout: timeout)
            try world.submit(request)
            return request.event
        }
    }
}
