import ApusTensor
import Glibc
import Synchronization

/// Threads with the stack that a compiler needs; those of ``ThreadPool`` have a small one.
enum CompilerThreads {
    private static let stackBytes = 64 << 20

    /// Calls `body` once for each of `0..<parts`, on as many threads as there are cores, and returns when all are done.
    static func run(parts: Int, _ body: @escaping @Sendable (Int) -> Void) {
        let work = Work(parts: parts, body: body)
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, stackBytes)
        var threads: [pthread_t] = []
        for _ in 0..<min(parts, ThreadPool.availableCores) {
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(work)
            let status = pthread_create(
                &thread, &attributes,
                { argument in
                    if let argument { Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().takeParts() }
                    return nil
                }, argument.toOpaque())
            if status == 0 { threads.append(thread) } else { argument.release() }
        }
        // Where the system refuses all threads, this one does the work.
        if threads.isEmpty { work.takeParts() }
        for thread in threads { pthread_join(thread, nil) }
    }

    private final class Work: Sendable {
        private let parts: Int
        private let body: @Sendable (Int) -> Void
        private let next = Atomic<Int>(0)

        init(parts: Int, body: @escaping @Sendable (Int) -> Void) {
            self.parts = parts
            self.body = body
        }

        func takeParts() {
            while true {
                let part = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard part < parts else { return }
                body(part)
            }
        }
    }
}
