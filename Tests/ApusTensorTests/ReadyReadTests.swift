import ApusTensor
import Glibc
import Synchronization
import Testing

@Suite struct `Reading a tensor on the host` {
    @Test func `waits for the work that completes it`() throws {
        var tensor = try CachingAllocator().tensor([Float](repeating: 0, count: 4), Shape(4))
        let event = Event()
        tensor.ready = event
        let target = tensor
        let helpers = ThreadPool(threadCount: 2)
        let read = Mutex<[Float]>([])
        helpers.run(parts: 2) { part, _ in
            if part == 0 {
                usleep(20_000)
                target.assign([1, 2, 3, 4] as [Float])
                event.signal()
            } else {
                let floats = target.floats()
                read.withLock { $0 = floats }
            }
        }
        let values = read.withLock { $0 }
        #expect(values == [1, 2, 3, 4])
    }
}
