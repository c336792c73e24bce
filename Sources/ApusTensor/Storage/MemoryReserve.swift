import Synchronization

/// Blocks of an allocator that belong to recorded work: it will read and write them at the same addresses whenever it is
/// repeated.
///
/// While ``CachingAllocator/reserving(_:_:)`` runs, every block that is handed out is the reserve's. When its owner lets
/// go it waits here for the next request of that run, as it would in the allocator, and after the run for nobody. Blocks
/// of others that are let go during the run stay here too, for the recorded work may read them. All return to the
/// allocator when the last one lets go of the reserve: the recorded work, or a tensor made while it was recorded.
public final class MemoryReserve: Sendable {
    private let allocator: CachingAllocator
    private let blocks = Mutex(BlockCache())

    /// An empty reserve.
    public init(_ allocator: CachingAllocator) { self.allocator = allocator }

    deinit { allocator.takeBack { cache in blocks.withLock { $0.move(to: &cache) } } }

    /// Bytes that no tensor holds.
    public var byteCount: Int { blocks.withLock { $0.byteCount } }

    func take(_ size: Int) -> UInt? { blocks.withLock { $0.take(size) } }
    func put(_ address: UInt, size: Int) { blocks.withLock { $0.put(address, size: size) } }
}

extension CachingAllocator {
    /// Runs `body`, in which all memory comes from `reserve`, on any thread.
    public func reserving<Result>(_ reserve: MemoryReserve, _ body: () throws -> Result) rethrows -> Result {
        setReserve(reserve)
        defer { setReserve(nil) }
        return try body()
    }
}
