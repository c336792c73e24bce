import Glibc
import Synchronization

/// The completion of work that was started and runs elsewhere: waiting for it waits for that work alone.
///
/// A tensor carries the event that completes it; an op that reads the tensor waits for the event. Whoever starts the
/// work makes the event and signals it exactly once, with an error if the work failed.
// Sendable: all state is behind the mutex.
public final class Event: @unchecked Sendable {
    private var mutex = pthread_mutex_t()
    private var condition = pthread_cond_t()
    private var outcome: Result<Void, any Error>?

    /// An event that has not happened yet.
    public init() {
        pthread_mutex_init(&mutex, nil)
        pthread_cond_init(&condition, nil)
    }

    deinit {
        pthread_cond_destroy(&condition)
        pthread_mutex_destroy(&mutex)
    }

    /// Whether the work is over, well or badly.
    public var isComplete: Bool {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        return outcome != nil
    }

    /// Announces the end of the work and wakes whoever waits.
    public func signal(_ result: Result<Void, any Error> = .success(())) {
        pthread_mutex_lock(&mutex)
        precondition(outcome == nil, "an event happens once")
        outcome = result
        pthread_cond_broadcast(&condition)
        pthread_mutex_unlock(&mutex)
    }

    /// Blocks the calling thread until the work is over.
    ///
    /// - Throws: the error that the work ended with.
    public func wait() throws {
        pthread_mutex_lock(&mutex)
        while outcome == nil { pthread_cond_wait(&condition, &mutex) }
        let result = outcome
        pthread_mutex_unlock(&mutex)
        try result?.get()
    }
}
