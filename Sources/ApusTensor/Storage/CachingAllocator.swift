import Glibc
import Synchronization

/// Hands out storage from size-class free lists, and counts every byte by purpose.
///
/// A block goes back to the list of its class when its last owner lets go, so a training step that repeats the same
/// shapes asks the system for nothing after its first pass. Classes grow by an eighth of a power of two: at most
/// 12.5 % of a block is unused.
public final class CachingAllocator: Sendable {
    /// The device whose memory this allocator hands out.
    public let device: Device
    /// Most bytes that may be live at once; `nil` for no limit but the machine's.
    public let limit: Int?
    private let state: Mutex<State>

    private struct State: ~Copyable {
        var statistics = MemoryStatistics()
        var freeLists: [Int: [UInt]] = [:]
    }

    /// An allocator of host memory, refusing to hold more than `limit` bytes.
    public init(limit: Int? = nil) {
        device = .cpu
        self.limit = limit
        state = Mutex(State())
    }

    /// Bytes of memory that the machine has.
    public static var physicalMemory: Int {
        max(sysconf(Int32(_SC_PHYS_PAGES)), 1) * max(sysconf(Int32(_SC_PAGESIZE)), 4096)
    }

    deinit { releaseCache() }

    /// Storage of at least `byteCount` bytes, its contents undefined.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)`` when the limit or the system refuses.
    public func allocate(byteCount: Int, purpose: MemoryPurpose) throws(TensorError) -> Storage {
        precondition(byteCount >= 0)
        let size = CachingAllocator.sizeClass(of: byteCount)
        let address = state.withLock { state -> UInt? in
            if let limit, state.statistics.totalLive + size > limit { return nil }
            guard let address = CachingAllocator.takeBlock(size, from: &state) else { return nil }
            state.statistics.record(size, purpose: purpose)
            return address
        }
        guard let address, let pointer = UnsafeMutableRawPointer(bitPattern: address) else {
            throw .outOfMemory(requested: byteCount, purpose: purpose, statistics: statistics, limit: limit)
        }
        return Storage(pointer: pointer, byteCount: size, purpose: purpose, allocator: self)
    }

    /// A snapshot of the accounts.
    public var statistics: MemoryStatistics { state.withLock { $0.statistics } }

    /// Starts the peaks anew from what is live now.
    public func resetPeaks() {
        state.withLock {
            $0.statistics.peak = $0.statistics.live
            $0.statistics.totalPeak = $0.statistics.totalLive
        }
    }

    /// Gives every cached block back to the system.
    public func releaseCache() {
        state.withLock { state in
            for list in state.freeLists.values {
                for address in list { free(UnsafeMutableRawPointer(bitPattern: address)) }
            }
            state.freeLists.removeAll()
            state.statistics.cached = 0
        }
    }

    func reclaim(_ pointer: UnsafeMutableRawPointer, byteCount: Int, purpose: MemoryPurpose) {
        state.withLock { state in
            state.freeLists[byteCount, default: []].append(UInt(bitPattern: pointer))
            state.statistics.live[purpose.rawValue] -= byteCount
            state.statistics.totalLive -= byteCount
            state.statistics.cached += byteCount
        }
    }

    /// `MADV_HUGEPAGE`, which the Glibc module does not export.
    private static let hugePageAdvice: Int32 = 14

    private static func takeBlock(_ size: Int, from state: inout State) -> UInt? {
        if let address = state.freeLists[size]?.popLast() {
            state.statistics.cached -= size
            return address
        }
        // A large block starts on a huge-page boundary: fewer address translations in every product that reads it.
        let alignment = size >= 4 << 20 ? 2 << 20 : 64
        var pointer: UnsafeMutableRawPointer?
        guard posix_memalign(&pointer, alignment, size) == 0, let pointer else { return nil }
        if alignment > 64 { madvise(pointer, size, CachingAllocator.hugePageAdvice) }
        state.statistics.systemAllocations += 1
        return UInt(bitPattern: pointer)
    }

    /// The block size that serves a request: the next multiple of an eighth of its power of two, at least 256 bytes.
    static func sizeClass(of byteCount: Int) -> Int {
        guard byteCount > 256 else { return 256 }
        let power = 1 << (Int.bitWidth - 1 - (byteCount - 1).leadingZeroBitCount)
        let step = max(power / 8, 64)
        return (byteCount + step - 1) / step * step
    }
}

extension MemoryStatistics {
    mutating func record(_ bytes: Int, purpose: MemoryPurpose) {
        live[purpose.rawValue] += bytes
        totalLive += bytes
        peak[purpose.rawValue] = max(peak[purpose.rawValue], live[purpose.rawValue])
        totalPeak = max(totalPeak, totalLive)
    }
}
