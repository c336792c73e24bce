/// A reference-counted block of device memory that returns to its allocator when the last tensor over it goes.
///
/// On the CPU the block is free for reuse at once, because ops run inline; an op that is still under way (a
/// collective on its own thread) keeps its tensors, and with them the storage, alive until it is done.
// Sendable: the pointer and sizes never change; whoever writes through the pointer orders it with streams and events.
public final class Storage: @unchecked Sendable {
    /// The first byte, aligned to 64 bytes.
    public let pointer: UnsafeMutableRawPointer
    /// Usable bytes, at least the number asked for.
    public let byteCount: Int
    /// The account that this block is counted under.
    public let purpose: MemoryPurpose
    private let allocator: CachingAllocator

    init(pointer: UnsafeMutableRawPointer, byteCount: Int, purpose: MemoryPurpose, allocator: CachingAllocator) {
        self.pointer = pointer
        self.byteCount = byteCount
        self.purpose = purpose
        self.allocator = allocator
    }

    /// Where the bytes are.
    public var device: Device { allocator.device }

    deinit { allocator.reclaim(pointer, byteCount: byteCount, purpose: purpose) }
}
