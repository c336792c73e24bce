import Glibc

/// Prepares the batches of the next steps on a thread of its own, so that a step does not wait for storage.
///
/// Batches are those of ``SequenceStream/sequences(_:)`` whatever the timing: loading ahead changes none of them.
// Sendable: what both threads touch is read and written with the mutex held.
public final class BatchLoader: @unchecked Sendable {
    /// Sequences of a global batch.
    public let batch: Int
    private let stream: SequenceStream
    private let parts: [Range<Int>]
    private let depth: Int
    private var ready: [Result<[TokenBatch], any Error>] = []
    private var nextStep: Int
    private var isStopping = false
    private var thread: pthread_t?
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    /// Loads the batches of steps `firstStep`, `firstStep + 1`, ..., counted from 0: step `n` reads places
    /// `n * batch ..< (n + 1) * batch` of the stream.
    ///
    /// - Parameters:
    ///   - parts: the sequences of each batch that are wanted, such as those of a rank's passes; all by default.
    ///   - depth: batches that are kept ready.
    public init(_ stream: SequenceStream, batch: Int, parts: [Range<Int>]? = nil, firstStep: Int, depth: Int = 2) {
        precondition(batch > 0 && depth > 0 && firstStep >= 0)
        self.stream = stream
        self.batch = batch
        self.parts = parts ?? [0..<batch]
        precondition(self.parts.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= batch })
        self.depth = depth
        nextStep = firstStep
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
        start()
    }

    /// Stops the thread and waits for it.
    deinit {
        pthread_mutex_lock(mutex)
        isStopping = true
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
        if let thread { pthread_join(thread, nil) }
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// The wanted parts of the next step's batch.
    ///
    /// - Throws: ``DataError`` when a file is no longer what it was; there are no batches after it.
    public func next() throws -> [TokenBatch] {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while ready.isEmpty { pthread_cond_wait(condition, mutex) }
        // A failure stays: whoever asks again gets it again.
        if case .failure(let error) = ready[0] { throw error }
        defer { pthread_cond_broadcast(condition) }
        return try ready.removeFirst().get()
    }

    private func start() {
        // Unretained: deinit joins the thread, and a retain would keep the loader alive for ever.
        let loader = Unmanaged.passUnretained(self)
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<BatchLoader>.fromOpaque(argument)._withUnsafeGuaranteedRef { $0.work() }
                return nil
            }, loader.toOpaque())
        precondition(status == 0, "the system refused a thread: errno \(status)")
        self.thread = thread
    }

    private func work() {
        while let step = claim() {
            let first = step * batch
            let result = Result {
                try parts.map { try stream.sequences(first + $0.lowerBound..<first + $0.upperBound) }
            }
            pthread_mutex_lock(mutex)
            ready.append(result)
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
            if case .failure = result { return }
        }
    }

    /// The step to load next, once there is room; `nil` when the loader ends.
    private func claim() -> Int? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while ready.count >= depth, !isStopping { pthread_cond_wait(condition, mutex) }
        if isStopping { return nil }
        nextStep += 1
        return nextStep - 1
    }
}
