import Glibc
import Synchronization

/// The ranks that this process was started among: one, or as many as `mpirun` or `srun` started.
public enum World {
    private static let joined = Mutex<MPICollective?>(nil)

    /// The communicator of all ranks: ``SingleRank`` unless a launcher of ranks started this process.
    ///
    /// The first call joins the others and waits for all of them; later ones return the same communicator, whatever
    /// their time-out.
    ///
    /// - Parameter timeout: How long an operation, and the start, may wait for the other ranks.
    /// - Throws: ``MPIProblem``.
    public static func current(timeout: Duration = .seconds(300)) throws -> any Collective {
        let environment = LaunchEnvironment.current
        switch environment.launch {
        case .single: return SingleRank()
        case .unusable(let words): throw MPIProblem.otherLauncher(words)
        case .ranks: break
        }
        return try joined.withLock { joined throws(MPIProblem) in
            if let joined { return joined }
            let world = try MPIWorld.join(environment, timeout: timeout) { _ in }
            joined = world
            return world
        }
    }

    /// How many of the ranks share this machine's cores, as the launcher tells, before or after joining.
    public static var ranksOnThisMachine: Int {
        let environment = LaunchEnvironment.current
        return environment.launch == .ranks ? max(environment.sizeOfMachine ?? 1, 1) : 1
    }

    /// Runs what every rank does alone before it joins the others, such as reading its input.
    ///
    /// Under a launcher this function does not return from a failure: of the ranks of a machine, which usually fail alike,
    /// one says why, and the process ends with status 1.
    ///
    /// - Throws: what `body` throws, on a single rank.
    public static func prepare<Value>(_ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch {
            if LaunchEnvironment.current.launch != .single { failStart(error) }
            throw error
        }
    }

    /// Runs a program on all ranks: joins them, runs `body`, and leaves when every rank has finished.
    ///
    /// When a rank fails, its message is printed once, on standard error, before anything else is; the world ends on all
    /// ranks, and what they throw then is not printed. Under a launcher this function does not return from a failure,
    /// for a world that is broken cannot be left in good order: the process ends with status 1. On a single rank it
    /// throws what `body` threw.
    ///
    /// - Parameters:
    ///   - timeout: How long an operation may wait for the other ranks.
    ///   - body: What every rank does; it is given the communicator of all ranks.
    /// - Throws: ``MPIProblem``, and what `body` throws.
    public static func run<Value>(
        timeout: Duration = .seconds(300), _ body: (any Collective) throws -> Value
    ) throws -> Value {
        let world: any Collective
        do {
            world = try current(timeout: timeout)
        } catch {
            if LaunchEnvironment.current.launch != .single { failStart(error) }
            throw error
        }
        guard let ranks = world as? MPICollective else { return try body(world) }
        do {
            let value = try body(world)
            try ranks.leave()
            return value
        } catch {
            ranks.world.endProcess(after: error)
        }
    }

    /// Ends a process that could not join; one of each machine says why.
    private static func failStart(_ error: any Error) -> Never {
        let environment = LaunchEnvironment.current
        let claim = WatchSocket.claim("apus-\(environment.job)-start")
        if claim != nil { writeLine("error: \(error)") }
        // The claim lasts as long as the process: long enough for ranks that began a little later to find it taken. And
        // the launcher ends all ranks when one has ended: the one that speaks goes first.
        usleep(claim != nil ? 500_000 : 1_000_000)
        _exit(1)
    }
}

extension MPICollective {
    /// Leaves the world, together with all other ranks, and closes MPI. Only the communicator of all ranks can.
    ///
    /// - Throws: ``CollectiveError`` when a rank does not come.
    public func leave() throws {
        precondition(name == worldName, "\(name) is not the world")
        try barrier()
        try world.close(within: timeout)
    }
}

extension MPIWorld {
    /// Closes MPI and ends the watch.
    fileprivate func close(within timeout: Duration) throws(CollectiveError) {
        let watchdog = attached
        watchdog?.leave()
        stop()
        let deadline = ContinuousClock.now + timeout
        while !hasStopped {
            if let failure { throw failure }
            if .now > deadline {
                throw .aborted(communicator: worldName, reason: "Open MPI did not close within \(timeout)")
            }
            usleep(1000)
        }
        watchdog?.stop()
    }

    /// Ends this process after a failure, and with it the world, unless that has ended already.
    fileprivate func endProcess(after error: any Error) -> Never {
        let watchdog = attached
        if failure == nil { fail(.aborted(communicator: worldName, reason: "rank \(rank) failed: \(error)")) }
        // Rank 0 says why; where nobody is known to have done so in time, this rank does.
        let deadline = ContinuousClock.now + .seconds(2)
        while watchdog?.isAnnounced == false, .now < deadline { usleep(1000) }
        // And stays until the others have heard it, those too that were slower to join: they would take it for lost.
        while rank == 0, watchdog?.isAllTold == false, .now < deadline { usleep(1000) }
        if watchdog?.isAnnounced != true { writeLine("error: rank \(rank): \(error)") }
        fflush(nil)
        // A moment for the verdict to reach the others, who would else see this rank end without a word.
        usleep(100_000)
        _exit(1)
    }
}
