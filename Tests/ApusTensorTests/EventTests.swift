import ApusTensor
import Glibc
import Synchronization
import Testing

@Suite struct `Events` {
    struct Broken: Error, Equatable { let code: Int }

    /// Runs `body` on a thread of its own, to be joined by the caller.
    private func thread(_ body: @escaping @Sendable () -> Void) -> pthread_t {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, Unmanaged.passRetained(Box(body)).toOpaque())
        return thread
    }

    @Test func `hold back whoever waits until they happen`() throws {
        let event = Event()
        let steps = Counter()
        #expect(!event.isComplete)
        let signaller = thread {
            usleep(20_000)
            steps.increment()
            event.signal()
        }
        try event.wait()
        #expect(steps.value == 1)
        #expect(event.isComplete)
        pthread_join(signaller, nil)
    }

    @Test func `wake all who wait`() {
        let event = Event()
        let woken = Counter()
        let waiters = (0..<8).map { _ in
            thread {
                if (try? event.wait()) != nil { woken.increment() }
            }
        }
        usleep(10_000)
        event.signal()
        for waiter in waiters { pthread_join(waiter, nil) }
        #expect(woken.value == 8)
    }

    @Test func `hand the error of the work to every wait`() {
        let event = Event()
        let signaller = thread { event.signal(.failure(Broken(code: 7))) }
        #expect(throws: Broken(code: 7)) { try event.wait() }
        #expect(throws: Broken(code: 7)) { try event.wait() }
        #expect(event.isComplete)
        pthread_join(signaller, nil)
    }

    @Test func `that have happened hold nobody back`() throws {
        let event = Event()
        event.signal()
        try event.wait()
        try event.wait()
    }

    @Test func `happen once`() async {
        await #expect(processExitsWith: .failure) {
            let event = Event()
            event.signal()
            event.signal()
        }
    }

    private final class Counter: Sendable {
        private let count = Atomic<Int>(0)
        var value: Int { count.load(ordering: .acquiring) }
        func increment() { count.wrappingAdd(1, ordering: .acquiringAndReleasing) }
    }
}
