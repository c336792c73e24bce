import ApusTensor
import CApusDrivers
import Glibc
import Synchronization

extension MPIWorld {
    /// Joins the ranks that this process was started among: once in a process.
    ///
    /// The progress thread initialises MPI and makes the contexts; then every rank connects to the watchdog of rank 0,
    /// whose address MPI carries.
    static func join(
        _ environment: LaunchEnvironment, timeout: Duration, settings change: (inout Watchdog.Settings) -> Void
    ) throws(MPIProblem) -> MPICollective {
        let presence = RankPresence(environment)
        let start = MPIStart()
        RankThread { start.run(isOneMachine: environment.isOneMachine) }.detach()
        let seat = try start.wait(timeout, presence)
        let world = seat.world
        var settings = Watchdog.Settings(
            rank: world.rank, size: world.size, silence: min(timeout, .seconds(30)), token: seat.address?.token ?? 0,
            announce: { writeLine($0.announcement) }, exit: { _exit(1) })
        change(&settings)
        let watchdog = Watchdog(
            settings, summary: { [weak world] in world?.summary(at: $0) ?? RankState() },
            end: { [weak world] in world?.end($0) })
        if let listener = seat.listener {
            watchdog.host(listener)
        } else if let address = seat.address {
            watchdog.join(
                try WatchSocket.connect(to: address, rank: world.rank, patience: min(timeout, .seconds(20))))
        } else {
            throw .unwatched(reason: "it could not listen")
        }
        world.attach(watchdog)
        guard let context = world.context(notIn: 0) else { throw .failed(function: "MPI_Comm_dup", text: "no context") }
        return MPICollective(
            world, context, name: worldName, rank: world.rank, members: Array(0..<world.size), timeout: timeout)
    }
}

/// What the progress thread finds out before it begins its loop.
private final class MPIStart: Sendable {
    struct Seat: Sendable {
        let world: MPIWorld
        /// Where rank 0 listens; `nil` where it could not.
        let address: WatchAddress?
        /// Rank 0's own socket.
        let listener: Int32?
    }

    private let outcome = Mutex<Result<Seat, MPIProblem>?>(nil)
    private let isDone = Event()

    /// Waits for every rank.
    func wait(_ timeout: Duration, _ presence: RankPresence) throws(MPIProblem) -> Seat {
        let deadline = ContinuousClock.now + timeout
        while !isDone.isComplete {
            if .now > deadline { throw .incompleteStart(after: timeout, absent: presence.absent) }
            usleep(1000)
        }
        guard let outcome = outcome.withLock({ $0 }) else {
            throw .failed(function: "MPI_Init_thread", text: "no outcome")
        }
        return try outcome.get()
    }

    /// The progress thread: start, loop, end.
    func run(isOneMachine: Bool) {
        do throws(MPIProblem) {
            let library = try MPILibrary()
            let (seat, progress) = try initialize(library, isOneMachine: isOneMachine)
            outcome.withLock { $0 = .success(seat) }
            isDone.signal()
            if progress.run() {
                _ = library.functions.finalize()
                seat.world.hasStopped = true
            } else {
                // MPI may still write to what the operations keep.
                _ = Unmanaged.passRetained(progress)
            }
        } catch {
            outcome.withLock { $0 = .failure(error) }
            isDone.signal()
        }
    }

    private func initialize(
        _ library: MPILibrary, isOneMachine: Bool
    ) throws(MPIProblem) -> (Seat, MPIProgress) {
        let functions = library.functions
        var (provided, rank, size): (Int32, Int32, Int32) = (0, 0, 0)
        try library.check(
            functions.initialize(nil, nil, APUS_MPI_ONE_THREAD_CALLS, &provided), "MPI_Init_thread")
        try library.check(functions.set_handler(functions.world, functions.errors_return), "MPI_Comm_set_errhandler")
        try library.check(functions.rank(functions.world, &rank), "MPI_Comm_rank")
        try library.check(functions.size(functions.world, &size), "MPI_Comm_size")
        guard provided >= APUS_MPI_ONE_THREAD_CALLS else {
            throw .failed(function: "MPI_Init_thread", text: "the library allows no threads")
        }
        var contexts: [apus_mpi_communicator] = []
        for _ in 0..<MPIContext.limit {
            var copy: apus_mpi_communicator?
            try library.check(functions.duplicate(functions.world, &copy), "MPI_Comm_dup")
            if let copy { contexts.append(copy) }
        }
        let world = MPIWorld(rank: Int(rank), size: Int(size), library: library.version)
        let (address, listener) = try announce(library, isHost: rank == 0, isOneMachine: isOneMachine)
        let progress = MPIProgress(library, contexts: contexts, tags: try tags(library), world: world)
        return (Seat(world: world, address: address, listener: listener), progress)
    }

    private func announce(
        _ library: MPILibrary, isHost: Bool, isOneMachine: Bool
    ) throws(MPIProblem) -> (WatchAddress?, Int32?) {
        var message = Array(repeating: UInt8(0), count: WatchAddress.messageSize)
        var own: (descriptor: Int32, address: WatchAddress)?
        if isHost {
            // Where rank 0 cannot listen it sends zeros, so that all ranks fail alike.
            own = try? WatchSocket.listen(isOneMachine: isOneMachine)
            if let own { message = own.address.message }
        }
        let functions = library.functions
        try library.check(
            functions.broadcast(&message, Int32(message.count), functions.byte, 0, functions.world), "MPI_Bcast")
        return (WatchAddress(message: message), own?.descriptor)
    }

    private func tags(_ library: MPILibrary) throws(MPIProblem) -> MessageTag {
        var largest: UnsafePointer<Int32>?
        var isKnown: Int32 = 0
        let functions = library.functions
        try library.check(
            functions.attribute(functions.world, APUS_MPI_LARGEST_TAG, &largest, &isKnown), "MPI_Comm_get_attr")
        let bound = isKnown != 0 ? largest.map { Int($0.pointee) } ?? 32767 : 32767
        return MessageTag(bits: Int.bitWidth - (bound + 1).leadingZeroBitCount - 1)
    }
}

extension CollectiveError {
    /// What the end of a world is announced with: the innermost reason.
    var announcement: String { "error: \(cause)" }
}

/// Writes a line to standard error in one go, so that ranks' lines do not mix.
package func writeLine(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    var offset = 0
    while offset < bytes.count {
        let written = bytes[offset...].withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        if written <= 0 { return }
        offset += written
    }
}
