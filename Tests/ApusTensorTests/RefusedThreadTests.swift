import Glibc
import Synchronization
import Testing

@testable import ApusTensor

@Suite struct `A pool that is refused threads` {
    @Test(arguments: [0, 1, 3]) func `works with those that it gets`(granted: Int) {
        var started = 0
        let pool = ThreadPool(threadCount: 1024) { thread, body, argument in
            guard started < granted else { return EAGAIN }
            started += 1
            return pthread_create(&thread, nil, body, argument)
        }
        #expect(pool.threadCount == granted + 1)
        let sum = Atomic<Int>(0)
        let highest = Atomic<Int>(0)
        pool.run(parts: 1000) { part, thread in
            sum.wrappingAdd(part, ordering: .relaxed)
            highest.max(thread, ordering: .relaxed)
        }
        let (total, last) = (sum.load(ordering: .relaxed), highest.load(ordering: .relaxed))
        #expect(total == 499_500)
        #expect(last <= granted)
    }
}
