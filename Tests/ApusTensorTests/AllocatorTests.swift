import ApusTensor
import ApusTestSupport
import Testing

@Suite struct `The caching allocator` {
    @Test func `hands a freed block to the next request of its size`() throws {
        let allocator = CachingAllocator()
        let first = try allocator.allocate(byteCount: 1000, purpose: .activations).pointer
        let second = try allocator.allocate(byteCount: 990, purpose: .workspace).pointer
        #expect(first == second)
        #expect(allocator.statistics.systemAllocations == 1)
    }

    @Test func `asks the system for nothing in a steady state`() throws {
        let allocator = CachingAllocator()
        try expectSteadyMemory(in: allocator, runs: 50) {
            var held: [Storage] = []
            for size in [1, 300, 4096, 4096, 70_000, 1 << 20, 5 << 20] {
                held.append(try allocator.allocate(byteCount: size, purpose: .activations))
            }
            held.removeFirst(3)
            held.append(try allocator.allocate(byteCount: 4096, purpose: .workspace))
            #expect(held.count == 5)
        }
    }

    @Test func `counts live bytes and peaks by purpose`() throws {
        let allocator = CachingAllocator()
        let weights = try allocator.allocate(byteCount: 4096, purpose: .parameters)
        do {
            let scratch = try allocator.allocate(byteCount: 8192, purpose: .workspace)
            #expect(scratch.purpose == .workspace)
            #expect(allocator.statistics[.workspace] == 8192)
            #expect(allocator.statistics.totalLive == 12288)
        }
        var statistics = allocator.statistics
        #expect(statistics[.parameters] == weights.byteCount)
        #expect(statistics[.workspace] == 0)
        #expect(statistics.totalLive == 4096)
        #expect(statistics.totalPeak == 12288)
        #expect(statistics.peak[MemoryPurpose.workspace.rawValue] == 8192)
        #expect(statistics.cached == 8192)
        allocator.resetPeaks()
        statistics = allocator.statistics
        #expect(statistics.totalPeak == 4096)
        #expect(statistics.peak[MemoryPurpose.workspace.rawValue] == 0)
        allocator.releaseCache()
        #expect(allocator.statistics.cached == 0)
        #expect(allocator.statistics.totalLive == 4096)
    }

    @Test(arguments: [0, 1, 255, 256, 257, 511, 512, 513, 1000, 4096, 4097, 65_535, 1_000_000, 5_000_000, 33_554_433])
    func `gives aligned blocks that are little larger than asked for`(size: Int) throws {
        let storage = try CachingAllocator().allocate(byteCount: size, purpose: .data)
        #expect(Int(bitPattern: storage.pointer) % 64 == 0)
        #expect(storage.byteCount >= size)
        // An eighth of a power of two, or a cache line for small blocks.
        #expect(storage.byteCount <= max(256, size + max(64, size / 8)))
        storage.pointer.initializeMemory(as: UInt8.self, repeating: 1, count: storage.byteCount)
    }

    @Test func `refuses what passes its limit and says what to lower`() throws {
        let allocator = CachingAllocator(limit: 4 << 20)
        let weights = try allocator.allocate(byteCount: 1 << 20, purpose: .parameters)
        let activations = try allocator.allocate(byteCount: 2 << 20, purpose: .activations)
        let error = #expect(throws: TensorError.self) {
            try allocator.allocate(byteCount: 3 << 19, purpose: .workspace)
        }
        let text = "\(try #require(error))"
        #expect(text.contains("1.5 MiB asked for workspace"))
        #expect(text.contains("held 3 MiB of the 4 MiB allowed"))
        #expect(text.contains("parameters 1 MiB"))
        #expect(text.contains("activations 2 MiB"))
        #expect(text.contains("Lower data.sequence_length, training.micro_batch"))
        #expect(weights.byteCount + activations.byteCount == 3 << 20)
        // What was refused took nothing: the rest of the limit is still to be had.
        #expect(try allocator.allocate(byteCount: 1 << 20, purpose: .workspace).byteCount == 1 << 20)
    }

    @Test(arguments: MemoryPurpose.allCases)
    func `names a key for every purpose`(purpose: MemoryPurpose) throws {
        let allocator = CachingAllocator(limit: 1 << 20)
        let held = try allocator.allocate(byteCount: 1 << 20, purpose: purpose)
        let error = #expect(throws: TensorError.self) { try allocator.allocate(byteCount: 1, purpose: .data) }
        #expect("\(try #require(error))".contains("Lower \(purpose.keysToLower)"))
        #expect(!purpose.keysToLower.isEmpty)
        #expect(held.purpose == purpose)
    }

    @Test func `refuses what the system does not have`() {
        #expect(throws: TensorError.self) { try CachingAllocator().allocate(byteCount: 1 << 60, purpose: .data) }
    }

    @Test func `serves several threads at once`() throws {
        let allocator = CachingAllocator()
        let pool = ThreadPool(threadCount: 4)
        pool.run(parts: 400) { part, _ in
            for round in 0..<20 {
                let size = 64 << ((part + round) % 6)
                let block = try? allocator.allocate(byteCount: size, purpose: .workspace)
                block?.pointer.initializeMemory(as: UInt8.self, repeating: UInt8(part % 256), count: size)
                let bytes = block.map { UnsafeRawBufferPointer(start: $0.pointer, count: size) }
                if bytes?.allSatisfy({ $0 == UInt8(part % 256) }) != true { Issue.record("a block was shared") }
            }
        }
        #expect(allocator.statistics.totalLive == 0)
    }

    @Test(arguments: [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1 << 20, "1 MiB"),
        (3_489_660_928, "3.25 GiB"),
        (1_085_276, "1.03 MiB"), (5 << 40, "5 TiB"),
    ])
    func `prints sizes for people`(bytes: Int, text: String) { #expect(formatBytes(bytes) == text) }
}
