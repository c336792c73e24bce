import Synchronization

extension InProcess {
    /// Runs `body` once for each rank, each on its own thread with its own communicator, and waits for all.
    ///
    /// A rank that throws ends the world, so that no other rank waits for it.
    ///
    /// - Parameters:
    ///   - ranks: Size of the world.
    ///   - delay: How long transfers take.
    ///   - timeout: How long an operation may wait for its ranks.
    /// - Returns: What the ranks returned, by rank.
    /// - Throws: The first error that any rank threw. One that tells only that the world was aborted gives way to one
    ///   that tells why.
    public static func run<Value: Sendable>(
        ranks: Int, delay: TransferDelay = .none, timeout: Duration = .seconds(60),
        _ body: @escaping @Sendable (InProcess) throws -> Value
    ) throws -> [Value] {
        precondition(ranks >= 1, "a world has at least one rank")
        let world = InProcessWorld(size: ranks, delay: delay)
        let outcome = Outcome<Value>(ranks: ranks)
        let progress = RankThread { world.runProgress() }
        let threads = (0..<ranks).map { rank in
            RankThread {
                let collective = InProcess(
                    world, group: 0, name: worldName, rank: rank, members: Array(0..<ranks), timeout: timeout)
                do {
                    let value = try body(collective)
                    outcome.results.withLock { $0.values[rank] = value }
                } catch {
                    outcome.note(error)
                    world.fail(.aborted(communicator: worldName, reason: "rank \(rank) failed: \(error)"))
                }
            }
        }
        for thread in threads { thread.join() }
        world.stop()
        progress.join()
        let (values, error) = outcome.results.withLock { ($0.values, $0.error) }
        if let error { throw error }
        return values.compactMap(\.self)
    }

    private final class Outcome<Value: Sendable>: Sendable {
        let results: Mutex<(values: [Value?], error: (any Error)?)>

        init(ranks: Int) { results = Mutex((Array(repeating: nil, count: ranks), nil)) }

        func note(_ error: any Error) {
            results.withLock { results in
                if results.error == nil || (results.error.isAbort && !Optional(error).isAbort) { results.error = error }
            }
        }
    }
}

extension (any Error)? {
    /// Whether this is the news of a failure that another rank had.
    fileprivate var isAbort: Bool {
        if case .aborted? = self as? CollectiveError { true } else { false }
    }
}
