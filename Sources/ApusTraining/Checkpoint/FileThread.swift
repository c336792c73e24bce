import ApusTensor
import Glibc

/// A thread that works on files while training goes on.
enum FileThread {
    /// Runs `body` on a thread of its own; here and now where the system refuses one.
    ///
    /// - Returns: what happens when it has run.
    static func run(_ body: @escaping @Sendable () throws -> Void) -> ApusTensor.Event {
        let work = Work(body)
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(work)
        let status = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, argument.toOpaque())
        if status == 0 {
            pthread_detach(thread)
        } else {
            argument.release()
            work.run()
        }
        return work.end
    }

    private final class Work: Sendable {
        let end = ApusTensor.Event()
        private let body: @Sendable () throws -> Void

        init(_ body: @escaping @Sendable () throws -> Void) { self.body = body }

        func run() { end.signal(Result { try body() }) }
    }
}
