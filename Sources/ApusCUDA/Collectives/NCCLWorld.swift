import ApusCollectives
import ApusTensor
import CApusDrivers
import Glibc
import Synchronization

/// What the communicators between GPUs share in one process: the stream of all exchanges, NCCL's communicators, and the
/// thread that watches both.
///
/// 1. All exchanges of a process go through one stream, in the order in which they were started, whatever their
///    communicators: kernels of several communicators that wait for each other's ranks cannot then get in each other's way.
/// 2. Sends and receives are gathered until one of them is waited for, or another operation is started, and begin
///    together: ranks that send to each other before they receive do not wait for each other.
/// 3. The time that an operation may take begins when the stream comes to it, however long before the host asked for it.
/// 4. When the world ends, NCCL's communicators are aborted, each by a thread of its own, which ends the kernels that wait
///    for other ranks.
final class NCCLWorld: Sendable {
    let backend: CUDABackend
    /// Where exchanges run.
    let stream: CUDAStream
    /// `nil` where nothing needs it, on a single rank.
    let library: NCCLLibrary?
    /// Messages that wait to begin together. Whoever holds this, and nobody else, calls NCCL for operations.
    private let gathered = Mutex<[NCCLCall]>([])
    private let state = Mutex(State())
    private let alarm = Alarm()
    /// The latest operation that the backend's stream waits for.
    private let awaited = Atomic(0)

    private struct State {
        /// Operations under way, in the order of the stream, behind `gone` that are over; not their tensors, whose storage
        /// knows until when it is used.
        var underWay: [UnderWay] = []
        var gone = 0
        /// Operations given to the stream so far.
        var count = 0
        var communicators: [NCCLCommunicator] = []
        var failure: CollectiveError?
        var abortProblem: String?
        var isClosing = false
        var isClosed = false

        /// Takes the operations at the front that are over.
        mutating func takeOver() -> [UnderWay] {
            let over = Array(underWay[gone...].prefix { $0.work.isComplete })
            gone += over.count
            // The rest is moved when it is the smaller part: with each end it would be moved for each operation.
            if gone * 2 >= underWay.count {
                underWay.removeFirst(gone)
                gone = 0
            }
            return over
        }

        /// The operations that the stream has come to, as far as is known, at least the oldest.
        var atFront: [UnderWay] {
            let left = underWay[gone...]
            let begun = left.prefix { $0.work.hasBegun }
            return Array(begun.isEmpty ? left.prefix(1) : begun)
        }
    }

    private struct UnderWay {
        let work: NCCLWork
        let noted: DeviceCall
        let calls: DeviceCalls
    }

    init(_ backend: CUDABackend, library: NCCLLibrary?) throws(CUDAError) {
        self.backend = backend
        self.library = library
        stream = try CUDAStream(backend.queue.context, isUrgent: true)
        RankThread { [self] in watch() }.detach()
    }

    /// Why the world has ended on this rank, as far as operations between GPUs were concerned.
    var failure: CollectiveError? { state.withLock { $0.failure } }

    /// What is left of NCCL after the world has ended, if its communicators could not all be aborted.
    var abortProblem: String? { state.withLock { $0.abortProblem } }

    // MARK: Operations

    /// Lets the stream wait for what the tensors of an operation wait for, and for all that the backend was given so far.
    func wait(for operation: CollectiveOperation) throws {
        try stream.context.makeCurrent()
        for tensor in [operation.input, operation.output] {
            if let ready = tensor?.ready { try stream.wait(for: ready) }
        }
        try stream.wait(for: CUDAEvent(on: backend.queue))
    }

    /// Gives an operation to the stream; a message waits for others.
    ///
    /// As many sends as receives are a round, such as each rank's with its neighbours, and complete in themselves: the next
    /// message begins another.
    func launch(_ call: NCCLCall) {
        gathered.withLock { gathered in
            let earlier = gathered.filter { $0.communicator === call.communicator }
            if !earlier.isEmpty, earlier.filter(\.isSend).count * 2 == earlier.count { launch(&gathered) }
            gathered.append(call)
            if !call.isMessage { launch(&gathered) }
        }
    }

    /// Gives the messages that wait for others to the stream.
    func launchMessages() { gathered.withLock { launch(&$0) } }

    private func launch(_ gathered: inout [NCCLCall]) {
        guard !gathered.isEmpty else { return }
        let calls = gathered
        gathered = []
        noteEnds()
        let (isOpen, wasIdle) = state.withLock { state in
            let wasIdle = state.underWay.count == state.gone
            // Noted before they begin: a call that hangs in NCCL is under way too.
            if state.failure == nil {
                state.underWay += calls.map { UnderWay(work: $0.work, noted: $0.noted, calls: $0.calls) }
            }
            return (state.failure == nil, wasIdle)
        }
        // The communicators are gone, and whoever waits for the calls has been told.
        guard isOpen else { return }
        if wasIdle { alarm.ring() }
        let messages = calls.filter(\.isMessage)
        var communicators: [NCCLCommunicator?] = []
        for message in messages where !communicators.contains(where: { $0 === message.communicator }) {
            communicators.append(message.communicator)
        }
        let groups = communicators.map { communicator in messages.filter { $0.communicator === communicator } }
        for together in groups + calls.filter({ !$0.isMessage }).map({ [$0] }) {
            guard issue(together) else { return }
        }
    }

    /// Puts an operation, or messages of one communicator, into the stream; `false` when the world ends because of it.
    private func issue(_ calls: [NCCLCall]) -> Bool {
        guard let first = calls.first else { return true }
        do throws(CUDAError) {
            try stream.context.makeCurrent()
            // Before NCCL is asked: who hangs there has begun too.
            let begin = try CUDAEvent(on: stream, isTimed: true)
            for call in calls { call.work.begin(at: begin) }
            if first.isMessage, let communicator = first.communicator {
                try communicator.library.group(of: communicator.handle) { () throws(CUDAError) in
                    for call in calls { try call.issue(on: stream) }
                }
            } else {
                try first.issue(on: stream)
            }
            let mark = try CUDAEvent(on: stream, isTimed: true)
            let number = state.withLock { state in
                state.count += 1
                return state.count
            }
            for call in calls { call.work.end(at: mark, number: number) }
            return true
        } catch {
            first.calls.fail("\(error)", in: first.noted)
            return false
        }
    }

    /// Takes note that the backend's stream waits for the operation `number`, and so for those before it.
    func noteWait(for number: Int) {
        // A message that has not begun has none; nobody could have waited for it.
        if number != .max { awaited.max(number, ordering: .relaxed) }
    }

    /// Whether what the backend is given from now on comes after the operation `number`.
    func isBehind(_ number: Int) -> Bool { number <= awaited.load(ordering: .relaxed) }

    // MARK: Ends

    /// Tells the watch of operations that are over.
    private func noteEnds() {
        for call in state.withLock({ $0.takeOver() }) { call.noted.end() }
    }

    /// Ends the world on this rank: no operation is given to NCCL any more, and its communicators are aborted.
    func end(_ error: CollectiveError) {
        state.withLock { state in
            if state.failure == nil { state.failure = error }
            (state.underWay, state.gone) = ([], 0)
        }
        alarm.ring()
    }

    /// Ends NCCL's communicators in good order, when every rank of `host` has come.
    ///
    /// - Throws: ``CollectiveError``, ``CUDAError``.
    func close(with host: any Collective) throws {
        launchMessages()
        let deadline = ContinuousClock.now + host.timeout
        let last = try CUDAEvent(on: stream)
        try wait(until: deadline, host) { last.isComplete }
        try host.barrier()
        state.withLock { $0.isClosing = true }
        alarm.ring()
        try wait(until: deadline + host.timeout, host) { state.withLock { $0.isClosed } }
    }

    private func wait(
        until deadline: ContinuousClock.Instant, _ host: any Collective, _ isOver: () -> Bool
    ) throws(CollectiveError) {
        while !isOver() {
            if let failure { throw failure }
            if .now > deadline {
                throw .aborted(
                    communicator: host.name, reason: "NCCL's communicators did not close within \(host.timeout)")
            }
            usleep(200)
        }
    }

    // MARK: The thread

    private static let interval = Duration.milliseconds(5)
    /// How long NCCL may take to abort its communicators.
    private static let abortTime = Duration.seconds(2)

    private func watch() {
        // The driver asks whose events they are.
        _ = try? stream.context.makeCurrent()
        while true {
            let (failure, isClosing) = state.withLock { ($0.failure, $0.isClosing) }
            if failure != nil { return abort() }
            if isClosing { return destroy() }
            noteEnds()
            let (front, communicators) = state.withLock { ($0.atFront, $0.communicators) }
            for call in front where call.work.hasBegun { call.noted.begin() }
            if let oldest = front.first {
                if let problem = communicators.lazy.compactMap(\.problem).first {
                    oldest.calls.fail(problem, in: oldest.noted)
                } else if oldest.noted.isOverdue(at: .now) {
                    oldest.noted.failAsLate()
                }
            }
            if self.failure == nil { alarm.sleep(until: front.isEmpty ? nil : .now + NCCLWorld.interval) }
        }
    }

    /// Ends the kernels that wait for other ranks. NCCL may block in it, so no communicator waits for another's abort, and
    /// nobody for all of them for long.
    private func abort() {
        // Not while somebody is in NCCL's hands, unless that one hangs there, which only this ends.
        let deadline = ContinuousClock.now + .seconds(1)
        while gathered.withLockIfAvailable({ _ in true }) == nil, .now < deadline { usleep(500) }
        let communicators = state.withLock { $0.communicators }
        let aborted = Tally()
        for communicator in communicators {
            RankThread {
                communicator.abort()
                aborted.count.add(1, ordering: .releasing)
            }.detach()
        }
        let end = ContinuousClock.now + NCCLWorld.abortTime
        while aborted.count.load(ordering: .acquiring) < communicators.count, .now < end { usleep(500) }
        let left = communicators.count - aborted.count.load(ordering: .acquiring)
        guard left > 0 else { return }
        let problem = """
            NCCL has not aborted \(left) of \(communicators.count) communicators within \(NCCLWorld.abortTime): what they \
            have on the GPU ends with this process
            """
        state.withLock { $0.abortProblem = problem }
        writeLine("note: \(problem)")
    }

    /// Counts what threads have done that nobody joins.
    private final class Tally: Sendable {
        let count = Atomic(0)
    }

    private func destroy() {
        for communicator in state.withLock({ $0.communicators }) { communicator.destroy() }
        state.withLock { $0.isClosed = true }
    }
}

// Communicators of NCCL.
extension NCCLWorld {
    /// NCCL's communicator of the ranks of `host`, which all call this: the one that there is of the same ranks in the same
    /// order, else a new one. `nil` for a single rank.
    ///
    /// - Throws: ``CollectiveError``, ``CUDAError``.
    func communicator(over host: any Collective, _ calls: DeviceCalls) throws -> NCCLCommunicator? {
        guard host.size > 1, let library else { return nil }
        if let known = state.withLock({ $0.communicators.first { $0.members == host.members } }) { return known }
        let id = try NCCLStart.share(library, over: host)
        let start = NCCLStart()
        let call = try calls.beginSetUp { start.end(.failure($0)) }
        let (rank, members, context) = (host.rank, host.members, stream.context)
        RankThread {
            start.end(
                Result {
                    try NCCLCommunicator.make(id, rank: rank, members: members, library: library, context: context)
                })
        }.detach()
        do {
            let made = try start.wait(for: call)
            call.end()
            state.withLock { $0.communicators.append(made) }
            return made
        } catch let error as CollectiveError {
            throw error
        } catch {
            calls.fail("\(error)", in: call)
            throw error
        }
    }
}
