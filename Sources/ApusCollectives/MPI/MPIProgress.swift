import ApusTensor
import CApusDrivers
import Glibc

/// The progress thread's own: all calls of MPI after the start are made here.
///
/// A loop: take new calls, post the messages of their first steps, test what is under way, and go on with operations whose
/// step is over. Without work it sleeps until a call comes; while messages are under way and nothing happens, it sleeps
/// for a quarter of the time that nothing has happened, so that it takes little from whoever computes and adds little to
/// any wait.
final class MPIProgress {
    private let library: MPILibrary
    private let contexts: [apus_mpi_communicator]
    private let tags: MessageTag
    private let world: MPIWorld
    private let workspace = Workspace()
    private let largestMessage: Int
    /// How long the thread looks for the end of a message without a pause: not at all where ranks share cores, for whoever is waited
    /// for may be waiting for this core. To yield the core instead would be to hand a whole slice of time to any other
    /// program that runs.
    private let patience: Duration
    private var requests: [apus_mpi_request?] = []
    private var messages: [Message] = []
    private var channels: [ChannelKey: ChannelQueue] = [:]
    private var indices: [Int32] = []
    private var statuses: [apus_mpi_status] = []

    /// A channel as the communicator's context and the pair of ranks.
    private struct ChannelKey: Hashable {
        let context: Int
        let pair: Channel.Pair?
    }

    /// Calls of one channel: those under way, by number, and those that wait for a number to be free.
    private struct ChannelQueue {
        var active: [Int] = []
        var waiting: [MPIRequest] = []
    }

    /// One request of MPI's.
    private struct Message {
        let operation: ActiveOperation
        let peer: Int
        /// Bytes that must arrive; `nil` for a message that is sent.
        let expected: Int?
    }

    private static let shortestSleep = Duration.microseconds(10)
    private static let longestSleep = Duration.microseconds(500)

    init(
        _ library: MPILibrary, contexts: [apus_mpi_communicator], tags: MessageTag, world: MPIWorld,
        largestMessage: Int = 1 << 30
    ) {
        self.library = library
        self.contexts = contexts
        self.tags = tags
        self.world = world
        self.largestMessage = largestMessage
        let sharesCores = World.ranksOnThisMachine > sysconf(Int32(_SC_NPROCESSORS_ONLN))
        patience = sharesCores ? .zero : .microseconds(50)
    }

    /// Runs until the world is closed; `false` when it has ended badly, and MPI is not to be called again.
    func run() -> Bool {
        var lastProgress = ContinuousClock.now
        while let new = world.takeInbox() {
            for request in new { admit(request) }
            if testMessages() || !new.isEmpty {
                lastProgress = .now
                continue
            }
            if world.isStopping, requests.isEmpty { return true }
            if requests.isEmpty {
                // At once: whoever waited for what is over now may have only this core to go on.
                world.sleep(for: nil)
                lastProgress = .now
                continue
            }
            let idle = lastProgress.duration(to: .now)
            if idle < patience { continue }
            world.sleep(for: min(max(idle / 4, MPIProgress.shortestSleep), MPIProgress.longestSleep))
        }
        return false
    }

    /// Starts a call, unless as many of its channel are under way as tags can tell apart.
    private func admit(_ request: MPIRequest) {
        let key = ChannelKey(context: request.context.index, pair: request.call.channel.pair)
        var queue = channels[key] ?? ChannelQueue()
        let oldest = queue.active.first ?? request.place.sequence
        let mayStart = queue.waiting.isEmpty && request.place.sequence - oldest < MessageTag.window
        if mayStart { queue.active.append(request.place.sequence) } else { queue.waiting.append(request) }
        channels[key] = queue
        if mayStart { begin(request) }
    }

    private func begin(_ request: MPIRequest) {
        let seat = ExchangeSeat(rank: request.rank, size: request.members.count, workspace: workspace)
        let tag = tags.tag(of: request.place, isPair: request.call.channel.pair != nil)
        let operation = ActiveOperation(request, seat, tag: tag)
        advance(operation)
    }

    /// Goes from step to step until one has messages, or all are over.
    private func advance(_ operation: ActiveOperation) {
        while operation.nextStep < operation.stepCount {
            post(operation.takeStep(), of: operation)
            if operation.messagesLeft > 0 { return }
        }
        _ = operation.takeStep()
        finish(operation)
    }

    private func finish(_ operation: ActiveOperation) {
        let request = operation.end()
        let key = ChannelKey(context: request.context, pair: request.channel.pair)
        // The tensors went with the operation, so that whoever waits finds itself their only owner.
        world.complete(request.identity, request.event)
        guard var queue = channels[key] else { return }
        queue.active.removeAll { $0 == request.sequence }
        let waiting = queue.waiting
        queue.waiting = []
        channels[key] = queue.active.isEmpty && waiting.isEmpty ? nil : queue
        for next in waiting { admit(next) }
    }

    private func post(_ step: ExchangePlan.Step, of operation: ActiveOperation) {
        for message in step.receives { post(message, of: operation, isReceive: true) }
        for message in step.sends { post(message, of: operation, isReceive: false) }
    }

    /// Posts a message, in pieces where its size leaves the range of MPI's counts.
    private func post(_ message: ExchangePlan.Message, of operation: ActiveOperation, isReceive: Bool) {
        let communicator = contexts[operation.context]
        let peer = Int32(operation.members[message.peer])
        for piece in message.pieces(largest: largestMessage) {
            var request: apus_mpi_request?
            let (address, count) = (piece.address, Int32(piece.byteCount))
            let code =
                isReceive
                ? library.functions.receive(
                    address, count, library.functions.byte, peer, operation.tag, communicator, &request)
                : library.functions.send(
                    address, count, library.functions.byte, peer, operation.tag, communicator, &request)
            guard code == APUS_MPI_SUCCESS else {
                return fail(operation, "\(isReceive ? "MPI_Irecv" : "MPI_Isend"): \(library.errorText(code))")
            }
            requests.append(request)
            messages.append(
                Message(operation: operation, peer: message.peer, expected: isReceive ? piece.byteCount : nil))
            operation.messagesLeft += 1
        }
    }

    /// Tests what is under way; whether anything was over.
    private func testMessages() -> Bool {
        guard !requests.isEmpty else { return false }
        if indices.count < requests.count {
            indices = Array(repeating: 0, count: requests.count * 2)
            statuses = Array(repeating: apus_mpi_status(), count: requests.count * 2)
        }
        var completed: Int32 = 0
        let code = library.functions.test_some(Int32(requests.count), &requests, &completed, &indices, &statuses)
        guard code == APUS_MPI_SUCCESS || code == APUS_MPI_IN_STATUS else {
            messages.first.map { fail($0.operation, "MPI_Testsome: \(library.errorText(code))") }
            return true
        }
        guard completed > 0 else { return false }
        var ready: [ActiveOperation] = []
        let over = indices[..<Int(completed)].map(Int.init)
        for (place, index) in over.enumerated() {
            let message = messages[index]
            examine(message, statuses[place], hasError: code == APUS_MPI_IN_STATUS)
            message.operation.messagesLeft -= 1
            if message.operation.messagesLeft == 0 { ready.append(message.operation) }
        }
        for index in over.sorted(by: >) {
            requests.swapAt(index, requests.count - 1)
            requests.removeLast()
            messages.swapAt(index, messages.count - 1)
            messages.removeLast()
        }
        if world.failure == nil { for operation in ready { advance(operation) } }
        return true
    }

    /// Ends the world when a message is not what was expected.
    private func examine(_ message: Message, _ status: apus_mpi_status, hasError: Bool) {
        if hasError, status.error != APUS_MPI_SUCCESS, status.error != APUS_MPI_TRUNCATED {
            return fail(message.operation, library.errorText(status.error))
        }
        guard let expected = message.expected else { return }
        var arrived: Int32 = 0
        var status = status
        _ = library.functions.received(&status, library.functions.byte, &arrived)
        let isCut = hasError && status.error == APUS_MPI_TRUNCATED
        guard isCut || Int(arrived) != expected else { return }
        world.fail(
            message.operation.disagreement(
                with: message.peer, expected: expected, arrived: Int(arrived), isCut: isCut))
    }

    private func fail(_ operation: ActiveOperation, _ words: String) {
        world.fail(
            .aborted(communicator: operation.call.channel.communicator, reason: "\(operation.call): Open MPI: \(words)")
        )
    }
}
