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
    /// Whether what the device's compute stream is given from now on comes after it: it is over, or that stream waits for
    /// it already.
    var isBehind: Bool { get }
}

extension DeviceWork {
    /// Whether it is over.
    public var isBehind: Bool { isComplete }
}

/// A device's work of which the device itself takes the time.
public protocol TimedWork: DeviceWork {
    /// The device's seconds from its begin to its end; `nil` until it is over, and where it ended badly. Asking is no wait.
    var seconds: Double? { get }
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
    private var firstWait: Int?
    private var completion: Completion?
    private var observer: (@Sendable (Completion) -> Void)?
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

    /// Whether whoever gets the work's memory next, on the stream that computes, comes after it.
    var isBehind: Bool { work?.isBehind ?? isComplete }

    /// Announces the end of the work and wakes whoever waits.
    public func signal(_ result: Result<Void, any Error> = .success(())) {
        precondition(work == nil, "the device ends its own work")
        pthread_mutex_lock(&mutex)
        precondition(outcome == nil, "an event happens once")
        outcome = result
        let completion = Completion(time: HostClock.nanoseconds, waitedSince: firstWait)
        self.completion = completion
        // Before anybody wakes, so that whoever has waited finds it told.
        observer.take()?(completion)
        pthread_cond_broadcast(&condition)
        pthread_mutex_unlock(&mutex)
    }

    /// Blocks the calling thread until the work is over.
    ///
    /// - Throws: the error that the work ended with.
    public func wait() throws {
        if let work { return try wait(for: work) }
        pthread_mutex_lock(&mutex)
        if outcome == nil, firstWait == nil { firstWait = HostClock.nanoseconds }
        while outcome == nil { pthread_cond_wait(&condition, &mutex) }
        let result = outcome
        pthread_mutex_unlock(&mutex)
        try result?.get()
    }
}

// Who counts what work costs.
extension Event {
    /// When the work of an event ended, and since when somebody was held up by it; times of ``HostClock``.
    public struct Completion: Sendable, Equatable {
        /// When the work ended.
        public let time: Int
        /// When somebody first came to wait and had to; `nil` when nobody had to.
        public let waitedSince: Int?
    }

    /// Calls `body` once, when the work ends, on the thread that announces it; at once if it has ended.
    ///
    /// The time told is that of the announcement, whoever looks and when. A device does not announce: the end of its work
    /// is told by the first ``wait()`` that returns, with the time of that, and never where the host does not wait.
    ///
    /// - Parameter body: Short, and nothing that asks this event, which is locked.
    public func observe(_ body: @escaping @Sendable (Completion) -> Void) {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        if let completion { return body(completion) }
        let earlier = observer
        observer = { completion in
            earlier?(completion)
            body(completion)
        }
    }

    private func wait(for work: any DeviceWork) throws {
        let begin = isObserved && !work.isComplete ? HostClock.nanoseconds : nil
        defer { tellOfDevice(waitedSince: begin) }
        try work.wait()
    }

    private var isObserved: Bool {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        return observer != nil
    }

    private func tellOfDevice(waitedSince begin: Int?) {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        guard let observer = observer.take() else { return }
        let completion = Completion(time: HostClock.nanoseconds, waitedSince: begin)
        self.completion = completion
        observer(completion)
    }
}
