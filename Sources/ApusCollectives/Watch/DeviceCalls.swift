import Synchronization

/// The calls of one communicator that a device's library carries out, in the watch over the ranks of its host
/// communicator: they are numbered and noted as those of the host are, on a channel of their own.
package final class DeviceCalls: Sendable {
    private let watch: any CallWatch
    private let carrier: String
    private let channel: String
    private let rank: Int
    private let members: [Int]
    private let timeout: Duration
    private let numbers = Mutex<[Channel.Pair?: Int]>([:])

    /// The calls of the ranks of `host`, carried out by `carrier`, which messages name.
    package convenience init(over host: any Collective, carrier: String) {
        self.init(over: host, carrier: carrier, (host as? MPICollective)?.world ?? CallBook(host))
    }

    private init(over host: any Collective, carrier: String, _ watch: any CallWatch) {
        self.watch = watch
        self.carrier = carrier
        channel = "\(host.name) (\(carrier))"
        rank = host.rank
        members = host.members
        timeout = host.timeout
    }

    /// The calls of a part of the communicator, in the same watch.
    package func part(_ host: any Collective) -> DeviceCalls { DeviceCalls(over: host, carrier: carrier, watch) }

    /// Why the world has ended, if it has.
    package var failure: CollectiveError? { watch.failure }

    /// What a call that is made now throws; `nil` while the world goes on.
    package var refusal: CollectiveError? {
        failure.map { .aborted(communicator: channel, reason: $0.cause) }
    }

    /// Notes `operation`, which is queued for the device: see ``DeviceCall/begin()``. `fail` is called once, on any thread,
    /// if the world ends before the call has.
    ///
    /// - Throws: ``CollectiveError/aborted(communicator:reason:)`` when it has ended already.
    package func begin(
        _ operation: CollectiveOperation, layer: Int?, fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> DeviceCall {
        try begin(OperationSignature(operation), operation.pair(of: rank), layer, isQueued: true, fail)
    }

    /// Notes that the ranks begin to make a communicator of the library.
    ///
    /// - Throws: ``CollectiveError/aborted(communicator:reason:)``.
    package func beginSetUp(
        fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> DeviceCall {
        try begin(OperationSignature(kind: .split, label: "start of \(carrier)"), nil, nil, isQueued: false, fail)
    }

    private func begin(
        _ signature: OperationSignature, _ pair: Channel.Pair?, _ layer: Int?, isQueued: Bool,
        _ fail: @escaping @Sendable (CollectiveError) -> Void
    ) throws(CollectiveError) -> DeviceCall {
        try numbers.withLock { numbers throws(CollectiveError) in
            let call = CollectiveCall(
                rank: members[rank], channel: Channel(communicator: channel, pair: pair),
                sequence: numbers[pair, default: 0], operation: signature, layer: layer, time: .now)
            let identity = try watch.note(call, timeout: timeout, members: members, isQueued: isQueued) {
                fail($0.seen(by: call))
            }
            numbers[pair, default: 0] += 1
            return DeviceCall(
                call: call, timeout: timeout, watch: watch, identity: identity, begun: isQueued ? nil : call.time)
        }
    }

    /// Ends the world on all ranks, beginning with this one, for something that went wrong in `call`, or in none.
    package func fail(_ reason: String, in call: DeviceCall? = nil) {
        watch.fail(.aborted(communicator: channel, reason: call.map { "\($0.call): \(reason)" } ?? reason))
    }
}

/// A call under way in a device's library.
///
/// The host gives a device calls long before it comes to them, so the time that one may take begins with ``begin()``.
package final class DeviceCall: Sendable {
    /// What was called.
    package let call: CollectiveCall
    /// How long it may take.
    package let timeout: Duration
    private let watch: any CallWatch
    private let identity: Int
    private let begun: Mutex<ContinuousClock.Instant?>

    fileprivate init(
        call: CollectiveCall, timeout: Duration, watch: any CallWatch, identity: Int, begun: ContinuousClock.Instant?
    ) {
        self.call = call
        self.timeout = timeout
        self.watch = watch
        self.identity = identity
        self.begun = Mutex(begun)
    }

    /// How much later than its time-out a call is failed here: the watch, which knows who is missing, comes first.
    private static let patience = Duration.seconds(5)

    /// Notes that the device has come to the call, the first time.
    package func begin() {
        let now = begun.withLock { begun -> ContinuousClock.Instant? in
            guard begun == nil else { return nil }
            begun = .now
            return begun
        }
        if let now { watch.begin(identity, at: now) }
    }

    /// Notes that the call is over.
    package func end() { _ = watch.complete(identity) }

    /// Whether nobody has failed it although it is late.
    package func isOverdue(at now: ContinuousClock.Instant) -> Bool {
        guard let begun = begun.withLock({ $0 }) else { return false }
        return begun.duration(to: now) > timeout + (watch.findsLateCalls ? DeviceCall.patience : .zero)
    }

    /// Ends the world because the call is late.
    package func failAsLate() {
        watch.fail(
            .aborted(
                communicator: call.channel.communicator,
                reason: "time-out: rank \(call.rank) waited \(timeout) in \(call), which did not end"))
    }
}
