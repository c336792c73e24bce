public import ApusCollectives
public import ApusTensor
import Synchronization

/// One rank of a world of GPUs, each with a process, over the communicator of the same ranks on the host.
///
/// 1. Operations on tensors of the backend's device go to NCCL, on a stream of their own: they wait on the device for all
///    that the backend was given before, whichever stream they name, and the host goes on. The event returned is the
///    device's, for which the backend's ops wait on the device too.
/// 2. Everything else goes to the host's communicator: operations on host memory, barriers, and what parts are made of.
/// 3. Calls are noted in the host's watch before NCCL is asked, so that it names the ranks that are missing. When the
///    world ends, NCCL's communicators are aborted, whoever waits learns why, and later calls throw
///    ``CollectiveError/aborted(communicator:reason:)``.
/// 4. NCCL adds in an order of its own, `bf16` with a rounding at each addition: ranks agree, but sums of more than two are
///    not the host's to the bit.
/// 5. A send or a receive begins when it is waited for, or when the rank starts another operation; those that have come
///    until then begin together, in rounds of as many sends as receives.
public final class NCCLCollective: Collective {
    /// The same ranks over host memory.
    public let host: any Collective
    let world: NCCLWorld
    private let calls: DeviceCalls
    private let communicator: NCCLCommunicator?

    init(_ host: any Collective, _ world: NCCLWorld, _ calls: DeviceCalls) throws {
        self.host = host
        self.world = world
        self.calls = calls
        communicator = try world.communicator(over: host, calls)
    }

    /// See ``Collective/name``.
    public var name: String { host.name }
    /// See ``Collective/rank``.
    public var rank: Int { host.rank }
    /// See ``Collective/members``.
    public var members: [Int] { host.members }
    /// See ``Collective/timeout``.
    public var timeout: Duration { host.timeout }

    /// NCCL's version; `nil` on a single rank, which needs none.
    public var version: LibraryVersion? { communicator?.library.version }

    /// See ``Collective/start(_:after:layer:)``. The device's stream is waited for whatever `stream` says.
    ///
    /// - Throws: ``CollectiveError``, ``RecordingError``, ``CUDAError``.
    public func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event {
        let tensors = [operation.input, operation.output].compactMap(\.self)
        let device = world.backend.stream.device
        guard !tensors.isEmpty, tensors.allSatisfy({ $0.device == device }) else {
            // Another rank may need the messages to come as far as this.
            world.launchMessages()
            return try host.start(operation, after: stream, layer: layer)
        }
        operation.check(rank: rank, size: size)
        try world.backend.refuseWhileRecording("an exchange between GPUs")
        if let refusal = calls.refusal { throw refusal }
        try world.wait(for: operation)
        let work = NCCLWork(world)
        let noted = try calls.begin(operation, layer: layer) { [world] error in
            work.fail(error)
            world.end(error)
        }
        world.launch(
            NCCLCall(
                operation: operation, work: work, noted: noted, calls: calls, communicator: communicator, rank: rank))
        if let failure = work.failure { throw failure }
        let event = Event(of: work)
        for tensor in tensors { tensor.storage.keep(until: event) }
        return event
    }

    /// See ``Collective/split(name:color:key:timeout:)``.
    ///
    /// - Throws: ``CollectiveError``, ``CUDAError``.
    public func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        world.launchMessages()
        guard let part = try host.split(name: name, color: color, key: key, timeout: timeout) else { return nil }
        return try NCCLCollective(part, world, calls.part(part))
    }

    /// See ``Collective/abort(reason:)``.
    public func abort(reason: String) { calls.fail(reason) }
}
