import ApusTestSupport
import Testing

@testable import ApusTensor

@Suite struct `What the allocator holds` {
    private func held(_ allocator: CachingAllocator) -> Int {
        allocator.statistics.totalLive + allocator.statistics.cached
    }

    @Test func `stays within the limit with what is cached`() throws {
        let limit = 64 << 20
        let allocator = CachingAllocator(limit: limit)
        // Every size is new: nothing that was freed serves the next request.
        for mebibytes in 1...60 {
            let block = try allocator.allocate(byteCount: mebibytes << 20, purpose: .workspace)
            #expect(block.byteCount >= mebibytes << 20)
            #expect(held(allocator) <= limit)
        }
        #expect(allocator.statistics.heldPeak <= limit)
        #expect(allocator.statistics.heldPeak >= 60 << 20)
    }

    @Test func `gives small cached blocks back for a large one`() throws {
        let allocator = CachingAllocator(limit: 1 << 20)
        for _ in 0..<2 {
            let small = try (0..<2048).map { _ in try allocator.allocate(byteCount: 512, purpose: .data) }
            withExtendedLifetime(small) {
                _ = #expect(throws: TensorError.self) { try allocator.allocate(byteCount: 1, purpose: .data) }
            }
        }
        #expect(allocator.statistics.cached == 1 << 20)
        #expect(try allocator.allocate(byteCount: 1 << 20, purpose: .data).byteCount == 1 << 20)
        #expect(allocator.statistics.cached == 1 << 20)
    }

    @Test func `stays near the peak of a cache that grows beside repeated work`() throws {
        let allocator = CachingAllocator()
        for _ in 0..<3 {
            var caches: [Storage?] = Array(repeating: nil, count: 8)
            for step in 1...60 {
                for layer in caches.indices {
                    let scratch = try allocator.allocate(byteCount: 3 << 20, purpose: .workspace)
                    #expect(scratch.byteCount == 3 << 20)
                    if step.isMultiple(of: 5) {
                        let grown = try allocator.allocate(byteCount: step << 18, purpose: .keyValueCache)
                        caches[layer] = grown
                    }
                }
                for _ in 0..<20 {
                    let logits = try allocator.allocate(byteCount: 40 << 20, purpose: .activations)
                    #expect(logits.byteCount == 40 << 20)
                }
            }
        }
        let statistics = allocator.statistics
        #expect(statistics.totalPeak >= 160 << 20)
        #expect(statistics.heldPeak < statistics.totalPeak * 5 / 4 + (32 << 20))
    }

    /// A step that needs several times as much in blocks of their own size as is ever live at once.
    @Test func `comes to rest over a step of many sizes`() throws {
        let allocator = CachingAllocator()
        let step = {
            for size in 20..<30 {
                let block = try allocator.allocate(byteCount: size << 20, purpose: .workspace)
                #expect(block.byteCount >= size << 20)
            }
        }
        for _ in 0..<20 { try step() }
        try expectSteadyMemory(in: allocator, runs: 5, step)
    }

    @Test func `goes back to the system`() throws {
        func resident() throws -> Int {
            let fields = try #require(textFile("/proc/self/statm")).split(separator: " ")
            return try #require(Int(fields[1])) * 4096
        }
        let allocator = CachingAllocator()
        do {
            let block = try allocator.allocate(byteCount: 256 << 20, purpose: .data)
            block.pointer.initializeMemory(as: UInt8.self, repeating: 1, count: block.byteCount)
        }
        let before = try resident()
        allocator.releaseCache()
        #expect(allocator.statistics.cached == 0)
        #expect(try before - resident() > 128 << 20)
    }
}
