import Synchronization

/// A reference-counted block of device memory that returns to its allocator when the last tensor over it goes.
///
/// The block is then free for reuse at once: ops run inline on the CPU, and on a device's compute stream whoever gets the
/// block next comes after whoever used it last. An op that is still under way elsewhere (a collective on its own thread)
/// keeps its tensors, and with them the storage, alive until it is done; one on another stream of the device says so by
/// ``keep(until:)``.
// Sendable: the pointer and sizes never change; whoever writes through the pointer orders it with streams and events.
public final class Storage: @unchecked Sendable {
    /// The first byte, aligned to 64 bytes; an address of the device, which the host cannot follow unless it is the CPU.
    public let pointer: UnsafeMutableRawPointer
    /// Usable bytes, at least the number asked for.
    public let byteCount: Int
    /// Where the bytes are.
    public let device: Device
    /// The account that this block is counted under.
    public let purpose: MemoryPurpose
    private let allocator: CachingAllocator
    /// Where the block goes back to, unless to the allocator's cache.
    private let reserve: MemoryReserve?
    private let uses = Mutex<[Event]>([])

    init(
        pointer: UnsafeMutableRawPointer, byteCount: Int, purpose: MemoryPurpose, allocator: CachingAllocator,
        reserve: MemoryReserve?
    ) {
        self.pointer = pointer
        self.byteCount = byteCount
        self.purpose = purpose
        self.allocator = allocator
        device = allocator.device
        self.reserve = reserve
    }

    /// Keeps the block from being handed out again before `use`, work on another stream than the one that computes.
    public func keep(until use: Event) {
        uses.withLock { uses in
            // A block that lives long, as gradients do, is used by ever new work.
            uses.removeAll(where: \.isBehind)
            uses.append(use)
        }
    }

    /// Whether work on another stream, for which ``keep(until:)`` was called, is under way and the compute stream does not
    /// wait for it.
    var isInUseElsewhere: Bool { uses.withLock { !$0.allSatisfy(\.isBehind) } }

    deinit {
        let uses = uses.withLock { uses in uses.filter { !$0.isBehind } }
        allocator.reclaim(pointer, byteCount: byteCount, purpose: purpose, uses: uses, reserve: reserve)
    }
}
