public import ApusTensor
public import Testing

/// Expects `body` to leave as many live bytes in `allocator` as it found.
public func expectNoLeak<Result>(
    in allocator: CachingAllocator, _ name: String = "the body", sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Result
) rethrows -> Result {
    let before = allocator.statistics.totalLive
    let result = try body()
    let after = allocator.statistics.totalLive
    #expect(after == before, "\(name) left \(after - before) more bytes live", sourceLocation: sourceLocation)
    return result
}

/// Expects the second and later runs of `body` to be served from the allocator's cache alone.
public func expectSteadyMemory(
    in allocator: CachingAllocator, runs: Int = 3, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> Void
) rethrows {
    try body()
    let settled = allocator.statistics.systemAllocations
    for _ in 1..<max(runs, 2) { try body() }
    let later = allocator.statistics.systemAllocations
    #expect(later == settled, "later runs asked the system \(later - settled) times", sourceLocation: sourceLocation)
}
