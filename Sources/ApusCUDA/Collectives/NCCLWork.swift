import ApusCollectives
import ApusTensor
import Glibc
import Synchronization

/// An operation between GPUs: over when the stream of exchanges has come past it, or when the world has ended.
final class NCCLWork: TimedWork {
    private let world: NCCLWorld
    private let state = Mutex(State())

    private struct State {
        /// Its begin in the stream, once it is given to it.
        var begin: CUDAEvent?
        /// Its end in the stream, once it was given to it, and its number there.
        var mark: CUDAEvent?
        var number = Int.max
        var failure: CollectiveError?
    }

    init(_ world: NCCLWorld) { self.world = world }

    /// Sets its begin in the stream.
    func begin(at mark: CUDAEvent) { state.withLock { $0.begin = mark } }

    /// Sets its end in the stream, in which it is the operation `number`.
    func end(at mark: CUDAEvent, number: Int) {
        state.withLock { state in
            state.mark = mark
            state.number = number
        }
    }

    /// Whether the stream has come to it: what it waits for now is the other ranks.
    var hasBegun: Bool { state.withLock { $0.begin }?.isComplete == true }

    /// The time of the messages that began together is each one's.
    var seconds: Double? {
        let (begin, mark, failure) = state.withLock { ($0.begin, $0.mark, $0.failure) }
        guard let begin, let mark, failure == nil else { return nil }
        _ = try? mark.context.makeCurrent()
        return mark.isComplete ? try? mark.seconds(since: begin) : nil
    }

    /// Takes note that `stream` waits for it from now on.
    func noteWait(of stream: CUDAStream) {
        let number = state.withLock { $0.number }
        if stream === world.backend.queue { world.noteWait(for: number) }
    }

    /// Whether it is over, or the backend's stream waits for it, or for one after it.
    var isBehind: Bool { world.isBehind(state.withLock { $0.number }) || isComplete }

    /// Ends it badly; whoever waits for it is told.
    func fail(_ error: CollectiveError) {
        state.withLock { state in
            if state.failure == nil { state.failure = error }
        }
    }

    var failure: CollectiveError? { state.withLock { $0.failure } }

    /// Whether it is over. A message that waits for others to begin with is not, and asking does not begin it.
    var isComplete: Bool {
        let (mark, failure) = state.withLock { ($0.mark, $0.failure) }
        return failure != nil || mark?.isComplete == true
    }

    /// Its end in the stream. Begins it where it waits for others.
    ///
    /// - Throws: ``CollectiveError``.
    func mark() throws(CollectiveError) -> CUDAEvent {
        for isLast in [false, true] {
            let (mark, failure) = state.withLock { ($0.mark, $0.failure) }
            if let failure { throw failure }
            if let mark { return mark }
            if !isLast { world.launchMessages() }
        }
        throw .aborted(communicator: "NCCL", reason: "an operation was given up before it began")
    }

    /// Looks at the clock of the world's failures all the while: what waits in the driver could not be told of them.
    func wait() throws {
        let mark = try mark()
        try mark.context.makeCurrent()
        var looks = 0
        while !mark.isComplete {
            if let failure { throw failure }
            if looks == 0 { mark.context.countSynchronization() }
            looks += 1
            if looks > NCCLWork.eagerLooks { usleep(NCCLWork.pause) }
        }
        if let failure { throw failure }
        try mark.wait()
    }

    /// About a millisecond of looking without a pause, then a look every few microseconds.
    private static let eagerLooks = 2000
    private static let pause: UInt32 = 20
}
