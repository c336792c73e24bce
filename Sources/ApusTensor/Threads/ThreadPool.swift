import CApusKernels
import Glibc
import Synchronization

/// Starts a thread that runs a function on an argument; 0, or the error number of a refusal.
typealias ThreadStart = (
    _ thread: inout pthread_t, _ body: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?,
    _ argument: UnsafeMutableRawPointer
) -> Int32

private func startThread(
    _ thread: inout pthread_t, _ body: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?,
    _ argument: UnsafeMutableRawPointer
) -> Int32 {
    // Kernels get their workspace from outside; the usual 8 MiB for each of many threads would use up a limited address
    // space.
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, 1 << 20)
    return pthread_create(&thread, &attributes, body, argument)
}

/// Threads that share one piece of work at a time: the only source of parallelism on the CPU.
///
/// Libraries called from inside run single-threaded, so cores are never oversubscribed. The caller takes part; a pool
/// of one runs inline. Work is handed out part by part from a shared counter, which balances uneven experts.
// Sendable: `body` is written only between runs, by whoever holds `isRunning`, and published by the `generation` counter.
public final class ThreadPool: @unchecked Sendable {
    /// Threads that take part in a run, the caller included: those asked for, or as many as the system grants.
    public private(set) var threadCount = 1
    private let isRunning = Atomic<Bool>(false)
    private let generation = Atomic<Int>(0)
    private let nextPart = Atomic<Int>(0)
    private let busyWorkers = Atomic<Int>(0)
    private let sleepers = Atomic<Int>(0)
    private var partCount = 0
    private var body: ((Int, Int) -> Void)?
    private var isStopping = false
    private var workers: [pthread_t] = []
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    /// How long an idle worker looks for new work before it sleeps: about 30 microseconds, the gap between two ops.
    private static let spinCount = 2000

    /// A pool of `threadCount` threads; by default one for each core the process may use.
    ///
    /// Where the system refuses a thread, the pool does with fewer, which ``threadCount`` tells.
    public convenience init(threadCount: Int = ThreadPool.availableCores) {
        self.init(threadCount: threadCount, start: startThread)
    }

    /// A pool whose threads `start` starts, which tells whether it could.
    init(threadCount: Int, start: ThreadStart) {
        precondition(threadCount >= 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
        while self.threadCount < threadCount, startWorker(self.threadCount, start) { self.threadCount += 1 }
    }

    /// Cores that this process may run on.
    public static var availableCores: Int { Int(apus_available_cores()) }

    /// Stops the threads and waits for them. The pool must be idle.
    deinit {
        pthread_mutex_lock(mutex)
        isStopping = true
        generation.wrappingAdd(1, ordering: .releasing)
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
        for worker in workers { pthread_join(worker, nil) }
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Calls `body(part, thread)` once for every part in `0..<parts`, in parallel, and returns when all are done.
    ///
    /// `thread` is below ``threadCount`` and never used by two calls at once: an index for per-thread workspace.
    /// A nested call runs inline, on a `thread` index of 0: per-thread workspace must not be shared with an outer run.
    public func run(parts: Int, _ body: (_ part: Int, _ thread: Int) -> Void) {
        guard parts > 0 else { return }
        // Whoever finds the pool at work (a nested call, another rank's thread) goes on alone rather than wait.
        guard threadCount > 1, parts > 1,
            isRunning.compareExchange(expected: false, desired: true, ordering: .acquiring).exchanged
        else {
            for part in 0..<parts { body(part, 0) }
            return
        }
        withoutActuallyEscaping(body) { runParallel(parts, $0) }
        isRunning.store(false, ordering: .releasing)
    }

    /// Cuts `0..<count` into one contiguous range a thread, each of at least `grain` elements but the last, and calls
    /// `body` on each in parallel. The cut depends on `count`, `grain` and the pool alone.
    public func forEachRange(count: Int, grain: Int, _ body: (Range<Int>, _ thread: Int) -> Void) {
        guard count > 0 else { return }
        let parts = max(1, min(threadCount, count / max(grain, 1)))
        run(parts: parts) { part, thread in
            body(count * part / parts..<count * (part + 1) / parts, thread)
        }
    }

    private func runParallel(_ parts: Int, _ body: @escaping (Int, Int) -> Void) {
        partCount = parts
        self.body = body
        nextPart.store(0, ordering: .relaxed)
        busyWorkers.store(threadCount - 1, ordering: .relaxed)
        generation.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if sleepers.load(ordering: .sequentiallyConsistent) > 0 {
            pthread_mutex_lock(mutex)
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
        }
        takeParts(thread: 0)
        var spins = 0
        while busyWorkers.load(ordering: .acquiring) > 0 {
            spins += 1
            if spins > ThreadPool.spinCount { sched_yield() }
        }
        self.body = nil
    }

    private func takeParts(thread: Int) {
        guard let body else { return }
        while true {
            let part = nextPart.wrappingAdd(1, ordering: .relaxed).oldValue
            guard part < partCount else { return }
            body(part, thread)
        }
    }

    private func startWorker(_ index: Int, _ start: ThreadStart) -> Bool {
        // The pool outlives its workers, because deinit joins them: unretained is enough, and a retain would keep the
        // pool alive for ever.
        let argument = Unmanaged.passRetained(Start(pool: Unmanaged.passUnretained(self), index: index))
        var thread = pthread_t()
        let status = start(
            &thread,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                start.pool._withUnsafeGuaranteedRef { $0.work(as: start.index) }
                return nil
            }, argument.toOpaque())
        guard status == 0 else {
            argument.release()
            return false
        }
        workers.append(thread)
        return true
    }

    private final class Start {
        let pool: Unmanaged<ThreadPool>
        let index: Int
        init(pool: Unmanaged<ThreadPool>, index: Int) {
            self.pool = pool
            self.index = index
        }
    }

    private func work(as index: Int) {
        var seen = 0
        while true {
            waitForGeneration(after: seen)
            seen += 1
            if isStopping { return }
            takeParts(thread: index)
            busyWorkers.wrappingSubtract(1, ordering: .releasing)
        }
    }

    private func waitForGeneration(after seen: Int) {
        for _ in 0..<ThreadPool.spinCount where generation.load(ordering: .acquiring) != seen { return }
        pthread_mutex_lock(mutex)
        sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        while generation.load(ordering: .sequentiallyConsistent) == seen { pthread_cond_wait(condition, mutex) }
        sleepers.wrappingSubtract(1, ordering: .relaxed)
        pthread_mutex_unlock(mutex)
    }
}
