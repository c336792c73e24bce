import Glibc
import Synchronization

/// Work that a device does, which tells when it is asked and not by itself.
public protocol DeviceWork: Sendable {
    /// Whether it is over, well or badly.
    var isComplete: Bool { get }
    /// Blocks the calling thread until it is over.
    ///
    /// - Throws: the error that it ended with.
    func wait() throws
}

/// The completion of work that was started and runs elsewhere: waiting for it waits for that work alone.
///
/// A tensor carries the event that completes it; an op that reads the tensor waits for the event. Whoever starts the
/// work makes the event and signals it exactly once, with an error if the work failed. An event of ``DeviceWork`` is not
/// signalled: it asks the device.
// Sendable: all state is behind the mutex.
public final class Event: @unchecked Sendable {
    private var mutex = pthread_mutex_t()
    private var condition = pthread_cond_t()
    private var outcome: Result<Void, any Error>?
    /// The device's work whose end this is, which a stream of the same device can wait for without the host; `nil` for an
    /// event that somebody signals.
    public let work: (any DeviceWork)?

    /// An event that has not happened yet.
    public convenience init() { self.init(of: nil) }

    /// The end of a device's work.
    public convenience init(of work: any DeviceWork) { self.init(of: Optional(work)) }

    private init(of work: (any DeviceWork)?) {
        self.work = work
        pthread_mutex_init(&mutex, nil)
        pthread_cond_init(&condition, nil)
    }

    deinit {
        pthread_cond_destroy(&condition)
        pthread_mutex_destroy(&mutex)
    }

    /// Whether the work is over, well or badly.
    public var isComplete: Bool {
        if let work { return work.isComplete }
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        return outcome != nil
    }

    /// Announces the end of the work and wakes whoever waits.
    public func signal(_ result: Result<Void, any Error> = .success(())) {
        precondition(work == nil, "the device ends its own work")
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
        if let work { return try work.wait() }
        pthread_mutex_lock(&mutex)
        while outcome == nil { pthread_cond_wait(&condition, &mutex) }
        let result = outcome
        pthread_mutex_unlock(&mutex)
        try result?.get()
    }
}
