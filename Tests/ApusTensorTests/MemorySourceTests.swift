import ApusTensor
import Synchronization
import Testing

@Suite struct `Memory of another source` {
    /// Addresses without memory behind them, of which `room` bytes are to be had.
    private final class Source: MemorySource {
        let device = Device.cuda(1)
        let room: Int
        private let state = Mutex((next: UInt(1 << 20), held: 0, requests: 0))

        init(room: Int) { self.room = room }

        var held: Int { state.withLock { $0.held } }
        var requests: Int { state.withLock { $0.requests } }

        func allocate(_ size: Int) throws(TensorError) -> UInt? {
            state.withLock { state in
                state.requests += 1
                guard state.held + size <= room else { return nil }
                state.held += size
                defer { state.next += UInt(size) }
                return state.next
            }
        }

        func free(_ address: UInt, size: Int) { state.withLock { $0.held -= size } }
    }

    @Test func `is that of its device, and goes back to it`() throws {
        let source = Source(room: 1 << 20)
        do {
            let allocator = CachingAllocator(source: source)
            let tensor = try allocator.empty(Shape(100), .f32, .activations)
            #expect(allocator.device == .cuda(1) && tensor.device == .cuda(1))
            #expect(source.held == 448)
        }
        #expect(source.held == 0)
    }

    @Test func `is not handed out again while it is used elsewhere`() throws {
        let source = Source(room: 1 << 20)
        let allocator = CachingAllocator(source: source)
        let use = Event()
        let first = try allocator.allocate(byteCount: 512, purpose: .activations)
        let address = first.pointer
        first.keep(until: use)
        _ = consume first
        #expect(allocator.statistics.cached == 512 && allocator.statistics.totalLive == 0)
        let second = try allocator.allocate(byteCount: 512, purpose: .activations)
        #expect(second.pointer != address)
        use.signal()
        let third = try allocator.allocate(byteCount: 512, purpose: .activations)
        #expect(third.pointer == address && source.requests == 2)
        #expect(allocator.statistics.cached == 0)
    }

    @Test func `is refused when there is no room, with what is held`() throws {
        let allocator = CachingAllocator(source: Source(room: 1024))
        let held = try allocator.allocate(byteCount: 512, purpose: .parameters)
        #expect(throws: TensorError.self) { try allocator.allocate(byteCount: 1024, purpose: .activations) }
        #expect(held.byteCount == 512)
    }

    @Test func `an event of a device's work asks the device`() throws {
        struct Lost: Error {}
        struct Work: DeviceWork {
            let isComplete: Bool
            func wait() throws { if !isComplete { throw Lost() } }
        }
        #expect(Event(of: Work(isComplete: true)).isComplete)
        let event = Event(of: Work(isComplete: false))
        #expect(!event.isComplete && event.work is Work)
        #expect(throws: Lost.self) { try event.wait() }
    }
}
